"""Continuation in λ, and distillation of its path into a hypernetwork."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .. import _arguments as checks
from .. import _programs as programs
from ..box import Box
from ..loss import Loss
from ..networks.hyper import HyperPINN
from ..networks.main import MainNet
from ..networks.model import AbstractModel, SingleNet
from ..physics.pinn import Known, PINNRows, Place
from ..training.adam import fit
from ..training.gauss_newton import Method, in_float64
from ..training.journal import Journal
from ..training.result import FitResult, TrainingStopped, converting
from ..training.run import History
from ..training.validation import check_type, trainable


def follow(
    net: MainNet,
    rows: PINNRows,
    lams: Float[ArrayLike, "L p"],
    *,
    key: PRNGKeyArray,
    steps: int = 30,
    first: int = 150,
    redraw: int = 10,
    progress: bool = True,
    what: str = "continuation",
    journal: Journal | None = None,
) -> FitResult[Float[Array, "L P"]]:
    """The main network's best weights θ*(λ) along a path of λ.

    Each λ is solved by Gauss-Newton, warm-started from its neighbour, so that θ* stays
    on one smooth branch although many other weights are as good.

    Args:
        net: the network to start from.
        rows: the loss.
        lams: the path, easy end first.
        key: a JAX random key.
        steps: Gauss-Newton steps for each λ.
        first: steps for the first λ, which has no neighbour.
        redraw: steps on one draw of points.
        progress: whether to show a bar.
        what: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every λ.

    Returns:
        A `FitResult` whose model is the path θ*, shape (L, P), and whose history holds
        the loss at each λ.

    Whatever exception ends it has an attribute `result`, see `fit`: the path up to the
    last λ that was solved.

    Raises:
        TrainingStopped: as by `gauss_newton`; the message names the λ.
        Stopped: a stop was requested of the journal, and everything is saved.
        ValueError: λ of another shape, or not finite or positive where they must be; a
            number below 1; weights that are not float64 or not finite; or the journal's
            arrays do not fit.
        TypeError: an argument of another kind.
    """
    checks.instance("net", net, MainNet)
    checks.instance("rows", rows, PINNRows)
    box = rows.problem.parameters
    lams = _positions(box, lams)
    checks.random_key("key", key)
    steps, first = checks.count("steps", steps), checks.count("first", first)
    redraw, net = checks.count("redraw", redraw), in_float64("net", net)
    # NaN where no λ has been solved yet.
    path = jnp.full((len(lams), net.spec.size), jnp.nan)

    def solved(path: Array) -> Array:
        return path[jnp.isfinite(path[:, 0])]

    everything = jax.tree.map(eqx.is_inexact_array, SingleNet(net, box))
    method, draw_at = Method(rows, net.spec.size, everything), programs.once(rows.draw)
    with History(len(lams), what, progress, key, path, solved, journal) as history:
        path = history.state
        if history.done:
            net = net.spec.unflatten(path[history.done - 1])
        model: AbstractModel = SingleNet(net=net, parameters=box)
        while not history.over:
            i = history.done
            lam, step_key = lams[i], jr.fold_in(key, i)

            def draw(
                model: AbstractModel, key: PRNGKeyArray, here: Array = lam[None]
            ) -> tuple[Array, tuple[Place, Known]]:
                return here, draw_at(model, here, key)

            state = (model, 0.0, 1e-4 if i else 1e-1, None, None)
            inner = History(
                steps if i else first, what, False, step_key, state, lambda s: s[0]
            )
            try:
                result = method.run(draw, inner, step_key, redraw, 1e-10)
            except TrainingStopped as error:
                history.stop(f"{error.reason} for λ = {lam.tolist()}")
            model = result.model
            path = path.at[i].set(model(lam).flatten())
            history.add(path, 1, {"total": float(result.history["total"][-1])})
        return history.result()


def distill(
    model: HyperPINN,
    lams: Float[ArrayLike, "L p"],
    path: Float[ArrayLike, "L P"],
    *,
    key: PRNGKeyArray,
    steps: int = 20_000,
    rate: float = 3e-3,
    progress: bool = True,
) -> FitResult:
    """Makes a hypernetwork reproduce weights θ*(λ) found by `follow`.

    The best head is known beforehand: θ₀ is the mean of the path, and the columns of W
    are its leading singular vectors. What is left to learn are the few numbers z(λ)
    with which each λ combines them; the trunk is regressed onto these by Adam.

    Args:
        model: an untrained HyperPINN.
        lams: the λ of the path, shape (L, p).
        path: the weights θ*, shape (L, P).
        key: a JAX random key.
        steps: Adam steps.
        rate: the first learning rate of a cosine schedule.
        progress: whether to show a bar.

    Returns:
        A `FitResult` with the model, and the history of the loss of z.

    Raises:
        TrainingStopped: the loss or the weights became NaN or infinite.
        ValueError: arrays of other shapes, not finite, or in another precision than
            the model's weights; or a number out of its range.
        TypeError: an argument of another kind.
    """
    checks.instance("model", model, HyperPINN)
    model = trainable("model", model)
    lams = _positions(model.parameters, lams)
    path = checks.array("path", path, "L", model.main.size, finite=True)
    if len(lams) != len(path):
        raise ValueError(f"lams has {len(lams)} rows, expected {len(path)} as path")
    check_type("path", path.dtype, model)
    steps, rate = checks.count("steps", steps), checks.number("rate", rate, 0.0)
    theta0 = jnp.mean(path, axis=0)
    u, s, vt = jnp.linalg.svd(path - theta0[None], full_matrices=False)
    modes = min(model.head.shape[1], len(s))
    # The trunk ends in tanh: z should stay well inside (-1, 1).
    size = jnp.max(jnp.abs(u[:, :modes]), axis=0) / 0.7
    z = u[:, :modes] / size[None]
    head = (
        jnp.zeros_like(model.head)
        .at[:, :modes]
        .set(vt[:modes].T * (s[:modes] * size)[None])
    )
    model = eqx.tree_at(lambda m: (m.head, m.theta0), model, (head, theta0))
    scaled = model.parameters.scale(lams.astype(path.dtype))

    def loss(trunk: tuple, key: PRNGKeyArray) -> Loss:
        family = eqx.tree_at(lambda m: m.trunk, model, trunk)
        found = jax.vmap(family.features)(scaled)[:, :modes]
        return Loss({"features": jnp.mean((found - z) ** 2)})

    def whole(result: FitResult) -> FitResult:
        trained = eqx.tree_at(lambda m: m.trunk, model, result.model)
        return FitResult(trained, result.history, result.seconds)

    with converting(whole):
        result = fit(
            model.trunk,
            loss,
            optax.adam(optax.cosine_decay_schedule(rate, steps)),
            steps=steps,
            key=key,
            chunk=1000,
            progress=progress,
            what="distillation",
        )
    return whole(result)


def _positions(box: Box, lams: Float[ArrayLike, "L p"]) -> Float[Array, "L p"]:
    """The λ of a path, each of them a possible one."""
    lams = checks.array("lams", lams, "L", len(box), finite=True)
    for lam in lams:
        box.parameter(lam, argument="lams")
    return lams
