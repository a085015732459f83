"""Continuation in λ, and distillation of its path into a hypernetwork."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _arguments as checks
from .. import _programs as programs
from .._arguments import ArrayLike, Count, Finite, NonNegative, checked
from ..box import Box
from ..loss import Batch, Loss
from ..networks.hyper import HyperPINN, Trunk
from ..networks.main import MainNet, in_float64
from ..networks.model import AbstractModel, SingleNet
from ..physics.pinn import PINNLoss
from ..training.fit import fit
from ..training.gauss_newton import GaussNewton, only_float64
from ..training.journal import Journal
from ..training.result import FitResult, TrainingStopped, converting
from ..training.run import AbstractOptimiser, Fault, run
from ..training.validation import check_type, trainable


class Path(eqx.Module):
    """The best weights of a main network along a path of λ.

    Attributes:
        lam: L values of λ, shape (L, p), physical units.
        weights: θ* for each, shape (L, P).
    """

    lam: Float[Array, "L p"]
    weights: Float[Array, "L P"]


@in_float64
@checked
def continuation(
    net: MainNet,
    loss: PINNLoss,
    lam: Finite[Float[ArrayLike, "L p"]],
    *,
    key: PRNGKeyArray,
    steps: Count = 30,
    first: Count = 150,
    redraw: Count = 10,
    progress: bool = True,
    name: str = "continuation",
    journal: Journal | None = None,
) -> FitResult[Path]:
    """The main network's best weights θ*(λ) along a path of λ.

    Each λ is solved by Gauss-Newton, warm-started from its neighbour, so that θ* stays
    on one smooth branch although many other weights are as good.

    Args:
        net: the network to start from.
        loss: the loss, of one λ after the other.
        lam: the path, easy end first.
        key: a JAX random key.
        steps: Gauss-Newton steps for each λ.
        first: steps for the first λ, which has no neighbour.
        redraw: steps on one draw of points.
        progress: whether to show a bar.
        name: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every λ.

    Returns:
        A `FitResult` whose model is the `Path`, and whose history holds the loss at
        each λ.

    Whatever exception ends it has an attribute `result`, see `fit`: the path up to the
    last λ that was solved.

    Raises:
        TrainingStopped: as by `gauss_newton`; the message names the λ.
        Stopped: a stop was requested of the journal, and everything is saved.
        ValueError: a λ that is not positive where it must be; weights that are not
            float64 or not finite; or the journal's arrays do not fit.
    """
    lam = _positions(loss.problem.parameters, lam)
    net = only_float64("net", net)
    optimiser = Continuation(net, loss, lam, steps, first, redraw)
    return run(
        optimiser,
        optimiser.init(),
        steps=len(lam),
        key=key,
        name=name,
        progress=progress,
        journal=journal,
    )


class Continuation(AbstractOptimiser[Array, Path]):
    """Steps along a path, each a training of its own; see `continuation`.

    The state are the weights, NaN where no λ has been solved yet.
    """

    def __init__(
        self,
        net: MainNet,
        loss: PINNLoss,
        lam: Float[Array, "L p"],
        steps: int,
        first: int,
        redraw: int,
    ):
        self.net, self.lam, self.steps, self.first = net, lam, steps, first
        self.box = loss.problem.parameters
        everything = jax.tree.map(eqx.is_inexact_array, SingleNet(net, self.box))
        self.newton = _AtOneLam(
            loss, net.spec.size, everything, redraw=redraw, floor=1e-10
        )

    def init(self, model: Path | None = None) -> Array:
        """The weights that are known at the start: none."""
        return jnp.full((len(self.lam), self.net.spec.size), jnp.nan)

    def model(self, state: Array) -> Path:
        """The path as far as it has been solved."""
        solved = jnp.isfinite(state[:, 0])
        return Path(self.lam[solved], state[solved])

    def step(
        self, state: Array, done: int, left: int, *, key: PRNGKeyArray
    ) -> tuple[Array, int, dict[str, float]]:
        """Solves the next λ."""
        net = self.net.spec.unflatten(state[done - 1]) if done else self.net
        self.newton.lam = self.lam[done]
        start = self.newton.init(SingleNet(net, self.box), 1e-4 if done else 1e-1)
        try:
            result = run(
                self.newton,
                start,
                steps=self.steps if done else self.first,
                key=jr.fold_in(key, done),
                name="one λ",
                progress=False,
            )
        except TrainingStopped as error:
            where = self.lam[done].tolist()
            raise Fault(f"{error.reason} for λ = {where}") from error
        state = state.at[done].set(result.model(self.lam[done]).flatten())
        return state, 1, {"total": float(result.history["total"][-1])}


class _AtOneLam(GaussNewton):
    """Gauss-Newton at one λ, another one for each training."""

    lam: Float[Array, " p"]

    def __init__(self, loss: PINNLoss, *args: Any, **options: Any):
        super().__init__(loss, *args, **options)
        self._at = programs.once(
            lambda model, key, lam: loss.sample(model, key=key, lam=lam[None])
        )

    def draw(self, model: AbstractModel, key: PRNGKeyArray) -> Batch:
        return self._at(model, key, self.lam)


@checked
def distill(
    model: HyperPINN,
    path: Path,
    *,
    key: PRNGKeyArray,
    steps: Count = 20_000,
    rate: NonNegative = 3e-3,
    progress: bool = True,
) -> FitResult:
    """Makes a hypernetwork reproduce weights θ*(λ) found by `continuation`.

    The best head is known beforehand: θ₀ is the mean of the path, and the columns of W
    are its leading singular vectors. What is left to learn are the few numbers z(λ)
    with which each λ combines them; the trunk is regressed onto these by Adam.

    Args:
        model: an untrained HyperPINN.
        path: λ and the weights θ*.
        key: a JAX random key.
        steps: Adam steps.
        rate: the first learning rate of a cosine schedule.
        progress: whether to show a bar.

    Returns:
        A `FitResult` with the model, and the history of the loss of z.

    Raises:
        TrainingStopped: the loss or the weights became NaN or infinite.
        ValueError: arrays of other shapes, not finite, or in another precision than
            the model's weights.
    """
    model = trainable("model", model)
    lams = _positions(model.parameters, path.lam)
    weights = checks.array(
        "path.weights", path.weights, len(lams), model.main.size, finite=True
    )
    check_type("path.weights", weights.dtype, model)
    theta0 = jnp.mean(weights, axis=0)
    u, s, vt = jnp.linalg.svd(weights - theta0[None], full_matrices=False)
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
    scaled = model.parameters.scale(lams.astype(weights.dtype))

    def loss(trunk: Trunk, key: PRNGKeyArray) -> Loss:
        found = jax.vmap(trunk)(scaled)[:, :modes]
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
            name="distillation",
        )
    return whole(result)


def _positions(box: Box, lams: Float[ArrayLike, "L p"]) -> Float[Array, "L p"]:
    """The λ of a path, each of them a possible one."""
    lams = checks.array("lam", lams, "L", len(box), finite=True)
    for lam in lams:
        box.parameter(lam)
    return lams
