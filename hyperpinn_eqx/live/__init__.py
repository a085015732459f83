"""Live figures: a trained HyperPINN that runs in the reader's browser."""

import base64
import dataclasses
import io
import itertools
import json
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._arguments import ArrayLike, checked
from ..dynamics.trajectories import simulate
from ..networks.hyper import HyperPINN
from ..networks.main import precision
from ..networks.model import cast, dtype_of
from ..physics.metrics import on_grid
from ..physics.sampling import uniform
from ..problems.base import AbstractPDE
from ..problems.burgers import Burgers
from ..problems.lorenz import Lorenz

_FILES = resources.files(__name__)
_SCRIPTS = ("network.js", "exact.js", "plot.js", "waves.js", "attractor.js", "start.js")
_COUNT = itertools.count()
_STATE = (5.0, -5.0, 5.0)  # where trajectories start, as in Figure 5 of the paper
_LABELS = {
    "waves": (
        "The solution as a heat map over {} and {}",
        "The solution at four values of {}",
    ),
    "attractor": (
        "A trajectory of the learned field",
        "The same trajectory of the exact field",
        "Its first component over time, learned and exact",
    ),
}


@dataclasses.dataclass(frozen=True)
class LiveFigure:
    """A figure that a notebook, or a page made from one, shows as HTML.

    Attributes:
        html: style, script, the model as JSON, and a picture that stands in where
            scripts do not run. It asks for nothing from outside.
        data: that JSON as Python data.
    """

    html: str
    data: dict[str, Any]

    def _repr_html_(self) -> str:
        return self.html


@checked
def live_figure(
    model: HyperPINN,
    problem: AbstractPDE | Lorenz,
    lam: ArrayLike | None = None,
) -> LiveFigure:
    """A figure with sliders for λ, drawn by the hypernetwork in the reader's browser.

    At every move of a slider the hypernetwork writes a main network, in JavaScript, and
    that draws the solution: u(t, x) as a heat map and as curves, or a trajectory of the
    vector field. Of several fields, the reader chooses one. For `Burgers` and `Lorenz`
    the exact solution and the error are shown too. The figure first checks itself
    against values that JAX computed.

    Args:
        model: a HyperPINN over two coordinates with one output for each field, or, for
            `Lorenz`, over three with three.
        problem: the equation that it was trained for.
        lam: where the sliders start, in physical units; None is the middle.

    Raises:
        ValueError: `model` has another shape, or weights that are not finite.

    >>> from hyperpinn_eqx import load_pretrained
    >>> figure = live_figure(load_pretrained("burgers-hyperpinn"), Burgers(), 0.01)
    >>> figure.data["model"]["hidden"]
    [32, 32, 32, 16]
    """
    kind = "attractor" if isinstance(problem, Lorenz) else "waves"
    fields = ("x", "y", "z") if isinstance(problem, Lorenz) else tuple(problem.fields)
    wanted = (3 if kind == "attractor" else 2, len(fields))
    sizes = model.main.sizes
    if (sizes[0], sizes[-1]) != wanted:
        raise ValueError(
            f"model has layers {sizes}, expected {wanted[0]} inputs and {wanted[1]} "
            f"output(s) for {problem}"
        )
    if model.main.hard is not None:
        raise ValueError("model has conditions built in by Python code, expected none")
    if lam is None:
        lam = model.parameters.unscale(jnp.zeros(len(model.parameters)))
    with precision(dtype_of(model)):
        start = model.parameters.parameter(lam)
    limits = _ranges(model) if kind == "waves" else None
    data = {
        "kind": kind,
        "equation": {Burgers: "burgers", Lorenz: "lorenz"}.get(type(problem)),
        "labels": [label.format(*model.main.inputs.names) for label in _LABELS[kind]],
        "start": np.asarray(start, float).tolist(),
        "state": _STATE,
        "fields": fields,
        "ranges": limits,
        "model": _weights(model),
        "golden": _golden(model, problem),
    }
    name = f"hpx-live-{next(_COUNT)}"
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    html = f"""<style>{(_FILES / "live.css").read_text("utf-8")}</style>
<div class="hpx-live" id="{name}">
<script type="application/json">{text}</script>
<noscript>{_picture(model, start, fields[0], limits)}</noscript>
</div>
<script>{_script()}hpxLive("{name}");</script>"""
    return LiveFigure(html, data)


def _script() -> str:
    """The JavaScript files in one scope of their own, run once on a page."""
    code = "\n".join((_FILES / name).read_text("utf-8") for name in _SCRIPTS)
    begin = 'window.hpxLive ??= (() => {\n"use strict";\n'
    return f"{begin}{code}\nreturn start;\n}})();\n"


def _weights(model: HyperPINN) -> dict[str, Any]:
    """The model as JSON-able data, its weights in the order in which they are used."""
    dtype = np.dtype(dtype_of(model))
    layers = zip(model.trunk.weights, model.trunk.biases, strict=True)
    leaves = [a for pair in layers for a in pair] + [model.head, model.theta0]
    flat = np.concatenate([np.ravel(a) for a in leaves]).astype(dtype.newbyteorder("<"))
    if not np.all(np.isfinite(flat)):
        raise ValueError("model has weights that are not finite, expected finite ones")
    main, config = model.main, model.config()
    return {
        "parameters": config["parameters"],
        "hidden": config["hidden"],
        "sizes": [main.inputs.width, *main.sizes[1:]],
        "inputs": config["main"]["inputs"],
        "outputs": config["main"]["outputs"],
        "odd": main.odd_axis,
        "size": main.size,
        "dtype": dtype.name,
        "weights": base64.b64encode(flat.tobytes()).decode(),
    }


def _golden(model: HyperPINN, problem: AbstractPDE | Lorenz) -> list[dict]:
    """Inputs, and what JAX makes of them in float64: for the page's own check."""
    with jax.enable_x64(True):
        exact_model = cast(model, jnp.float64)
        pairs: list[dict] = []
        for i, scaled in enumerate((-1.0, -0.5, 0.0, 0.6, 1.0)):
            lam = model.parameters.unscale(jnp.full(len(model.parameters), scaled))
            points = uniform(model.main.inputs, (8,), key=jr.key(i))
            values = jax.vmap(exact_model(lam))(points).reshape(len(points), -1)
            pair: dict[str, Any] = {"lam": lam, "points": points, "values": values}
            if isinstance(problem, Burgers):
                t, x = np.asarray(points).T
                pair["exact"] = problem.exact(t, x, lam[0])[:, None]
            elif isinstance(problem, Lorenz):
                pair["exact"] = jax.vmap(problem(lam))(points)
            pairs.append({k: np.asarray(v).tolist() for k, v in pair.items()})
    return pairs


def _ranges(model: HyperPINN) -> list[tuple[float, float]]:
    """The range of each field over the family, symmetric where it takes both signs."""
    box = model.main.inputs
    t, x = (np.linspace(*ends, 41) for ends in zip(box.low, box.high, strict=True))
    along = jnp.tile(jnp.linspace(-1, 1, 5)[:, None], len(model.parameters))
    lams = model.parameters.unscale(along)
    u = np.array([on_grid(model(lam), t, x) for lam in lams])
    return [_round(field) for field in u.reshape(-1, model.main.sizes[-1]).T]


def _round(u: Float[np.ndarray, " n"]) -> tuple[float, float]:
    # To a tenth, so that a range like [0, 1] is not shown as [0.0001, 0.9998].
    low = float(np.floor(10 * u.min() + 0.05)) / 10
    high = float(np.ceil(10 * u.max() - 0.05)) / 10
    return (-max(-low, high), max(-low, high)) if low < 0 else (low, high)


def _picture(
    model: HyperPINN,
    lam: Float[Array, " p"],
    field: str,
    limits: list[tuple[float, float]] | None,
) -> str:
    """A still picture of the same as HTML, for pages that do not run scripts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.subplots(1, 2)
    if limits is None:
        run = simulate(model, lam[None], jnp.array(_STATE)[None, None])
        x, _, z = np.asarray(run.states[0, 0]).T
        for ax, across, along, names in (
            (axes[0], x, z, ("$x$", "$z$")),
            (axes[1], run.t, x, ("$t$", "$x$")),
        ):
            ax.plot(across, along, linewidth=0.7)
            ax.set(xlabel=names[0], ylabel=names[1])
    else:
        box, (low, high) = model.main.inputs, limits[0]
        t, x = (np.linspace(*ends, 161) for ends in zip(box.low, box.high, strict=True))
        u = on_grid(model(lam), t, x).reshape(len(t), len(x), -1)[..., 0]
        axes[0].pcolormesh(t, x, u.T, cmap="RdBu_r", vmin=low, vmax=high)
        across, up = box.names
        axes[0].set(xlabel=f"${across}$", ylabel=f"${up}$")
        for i in (40, 80, 120, 160):
            axes[1].plot(x, u[i], label=f"${across} = {t[i]:g}$")
        axes[1].set(xlabel=f"${up}$", ylabel=f"${field}$")
        axes[1].legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    code = base64.b64encode(file.getvalue()).decode()
    where = ", ".join(
        f"{k} = {v:.3g}" for k, v in zip(model.parameters.names, lam, strict=True)
    )
    return f'<img src="data:image/png;base64,{code}" alt="The solution at {where}">'
