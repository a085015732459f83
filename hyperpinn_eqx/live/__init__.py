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
from ..box import Box, unpack
from ..dynamics.trajectories import simulate
from ..networks.hyper import HyperPINN
from ..networks.jets import jets
from ..networks.main import precision
from ..networks.model import cast, dtype_of
from ..physics.metrics import images
from ..physics.sampling import uniform
from ..problems.base import AbstractPDE
from ..problems.burgers import Burgers
from ..problems.lorenz import Lorenz

_FILES = resources.files(__name__)
_PARTS = ("network", "exact", "plot", "waves", "attractor", "shape", "start")
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
    "shape": ("A field over {} and {} in colours, and its stream lines",),
}
# Nodes along an axis of the grid whose image is drawn, periodic or not, and how much of
# the image may be left out.
_NODES, _CUT = (97, 49), 1e-6


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
    that draws the solution: u(t, x) as a heat map and as curves, a trajectory of the
    vector field, or, of a `Mapped` domain and of a flow (u, v) without a time, one
    picture of the domain as λ shapes it, with stream lines. Of several fields, the
    reader chooses one. For `Burgers` and `Lorenz` the exact solution and the error are
    shown too. The figure first checks itself against values that JAX computed.

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
    kind = _kind(problem)
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
    grid = _Grid(model, problem) if isinstance(problem, AbstractPDE) else None
    limits = None if grid is None else grid.ranges(fields, kind)
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
    if grid is not None and kind == "shape":
        data["mesh"] = grid.compressed()
        for pair in data["golden"]:
            pair["nodes"] = grid.some(np.asarray(pair["lam"]))
    name = f"hpx-live-{next(_COUNT)}"
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    html = f"""<style>{(_FILES / "live.css").read_text("utf-8")}</style>
<div class="hpx-live" id="{name}">
<script type="application/json">{text}</script>
<noscript>{_picture(model, start, fields[0], grid, limits)}</noscript>
</div>
<script>{_script()}hpxLive("{name}");</script>"""
    return LiveFigure(html, data)


def _script() -> str:
    """The JavaScript files in one scope of their own, run once on a page."""
    code = "\n".join((_FILES / f"{name}.js").read_text("utf-8") for name in _PARTS)
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


class _Grid:
    """The image of a grid, for every λ: what a picture of a domain is drawn on."""

    def __init__(self, model: HyperPINN, problem: AbstractPDE):
        self.model, self.domain, box = model, problem.domain, problem.domain.reference
        self.shape = [_NODES[0] if ring else _NODES[1] for ring in box.periodic]
        rows = zip(box.low, box.high, self.shape, strict=True)
        self.axes = [np.linspace(*row) for row in rows]
        points = np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1)
        self.points = points.reshape(-1, len(box))

    def at(self, lam: Float[ArrayLike, " p"]) -> Float[np.ndarray, "n 2"]:
        """The nodes for one λ."""
        with jax.enable_x64(True):
            value = unpack(self.model.parameters, jnp.asarray(lam, float))
            return np.asarray(images(self.domain, jnp.asarray(self.points), value))

    def values(self, lam: Float[Array, " p"]) -> Float[np.ndarray, "n k"]:
        """All fields at the nodes."""
        u = jets(self.model(lam), self.at(lam), (), self.domain.names).value
        return np.asarray(u).reshape(len(self.points), -1)

    def ranges(self, fields: tuple[str, ...], kind: str) -> list[tuple[float, float]]:
        """The range of each field over the family, symmetric where it takes both signs.

        Of a flow, that of its speed comes last.
        """
        box = self.model.parameters
        lams = box.unscale(jnp.tile(jnp.linspace(-1, 1, 5)[:, None], len(box)))
        u = np.concatenate([self.values(lam) for lam in lams])
        if kind == "shape" and {"u", "v"} <= {*fields}:
            speed = np.hypot(*(u[:, fields.index(name)] for name in ("u", "v")))
            u = np.hstack([u, speed[:, None]])
        return [_round(field) for field in u.T]

    def compressed(self) -> dict[str, Any]:
        """The nodes as a sum of few shapes, each times a polynomial in λ."""
        box = self.model.parameters
        ends = zip(box.low, box.high, strict=True)
        degrees = [1 if one == other else 9 for one, other in ends]
        # For periodic parameters too: the page's polynomials are in scaled λ.
        nodes = [-np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in degrees]
        scaled = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
        lams = np.asarray(box.unscale(scaled.reshape(-1, len(box))))
        every = np.stack([self.at(lam).T.ravel() for lam in lams], axis=1)
        left, sizes, right = np.linalg.svd(every, full_matrices=False)
        rank = int(np.sum(sizes > _CUT * sizes[0]))
        # Of each, the Chebyshev coefficients along every parameter.
        series = right[:rank].reshape(rank, *degrees)
        for axis, at in enumerate(nodes, start=1):
            to = np.linalg.inv(np.polynomial.chebyshev.chebvander(at, len(at) - 1))
            series = np.moveaxis(np.tensordot(to, series, (1, axis)), 0, axis)
        return {
            "shape": self.shape,
            "rank": rank,
            "degrees": degrees,
            "basis": _encoded((left[:, :rank] * sizes[:rank]).T),
            "series": _encoded(series),
        }

    def some(self, lam: Float[ArrayLike, " p"]) -> list[dict[str, Any]]:
        """Some nodes, as the page should find them."""
        places = self.at(lam)
        index = np.linspace(0, len(places) - 1, 7).astype(int)
        return [{"index": int(i), "at": places[i].tolist()} for i in index]


def _encoded(values: np.ndarray) -> str:
    return base64.b64encode(np.ravel(values).astype("<f4").tobytes()).decode()


def _kind(problem: AbstractPDE | Lorenz) -> str:
    if isinstance(problem, Lorenz):
        return "attractor"
    flow = {"u", "v"} <= {*problem.fields} and "t" not in problem.domain.names
    return "shape" if flow or not isinstance(problem.domain, Box) else "waves"


def _round(u: Float[np.ndarray, " n"]) -> tuple[float, float]:
    # To a tenth, so that a range like [0, 1] is not shown as [0.0001, 0.9998].
    low = float(np.floor(10 * u.min() + 0.05)) / 10
    high = float(np.ceil(10 * u.max() - 0.05)) / 10
    return (-max(-low, high), max(-low, high)) if low < 0 else (low, high)


def _picture(
    model: HyperPINN,
    lam: Float[Array, " p"],
    field: str,
    grid: _Grid | None,
    limits: list[tuple[float, float]] | None,
) -> str:
    """A still picture of the same as HTML, for pages that do not run scripts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.subplots(1, 2)
    if grid is None or limits is None:
        run = simulate(model, lam[None], jnp.array(_STATE)[None, None])
        x, _, z = np.asarray(run.states[0, 0]).T
        for ax, across, along, names in (
            (axes[0], x, z, ("$x$", "$z$")),
            (axes[1], run.t, x, ("$t$", "$x$")),
        ):
            ax.plot(across, along, linewidth=0.7)
            ax.set(xlabel=names[0], ylabel=names[1])
    else:
        (low, high), u = limits[0], grid.values(lam)[:, 0].reshape(grid.shape)
        x, y = grid.at(lam).T.reshape(2, *grid.shape)
        axes[0].pcolormesh(
            x, y, u, cmap="RdBu_r", vmin=low, vmax=high, shading="gouraud"
        )
        across, up = grid.domain.names
        axes[0].set(xlabel=f"${across}$", ylabel=f"${up}$")
        first, second = grid.domain.reference.names
        for i in np.linspace(0, grid.shape[0] - 1, 5).astype(int)[1:]:
            axes[1].plot(grid.axes[1], u[i], label=f"${first} = {grid.axes[0][i]:g}$")
        axes[1].set(xlabel=f"${second}$", ylabel=f"${field}$")
        axes[1].legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    code = base64.b64encode(file.getvalue()).decode()
    where = ", ".join(
        f"{k} = {v:.3g}" for k, v in zip(model.parameters.names, lam, strict=True)
    )
    return f'<img src="data:image/png;base64,{code}" alt="The solution at {where}">'
