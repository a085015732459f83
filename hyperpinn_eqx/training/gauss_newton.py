"""Damped Gauss-Newton: the steps that `linear_system.py` solves for."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .. import _arguments as checks
from .. import _blocks as blocks
from .. import _programs as programs
from .._arguments import Count, NonNegative, Positive, checked
from ..loss import AbstractLeastSquares, Batch
from ..networks.main import in_float64
from ..networks.model import AbstractModel, count_parameters, dtype_of
from .journal import Journal
from .linear_system import linearise, rows_of, solve
from .result import FitResult, Model
from .run import AbstractOptimiser, Callback, Fault, run
from .validation import trainable

# The largest damping, in units of |J|²: a step then promises to lower the loss by 2e-8
# of itself at most. More would be of no use, and where no step helps, as at a minimum,
# the damping would grow to infinity.
_MOST = 1e8


@in_float64
@checked
def gauss_newton(
    model: AbstractModel,
    loss: AbstractLeastSquares,
    *,
    steps: Count,
    key: PRNGKeyArray,
    redraw: Count = 8,
    damping: Positive = 1e-2,
    floor: NonNegative = 1e-12,
    rank: Count = 32,
    frozen: Callable[[AbstractModel], PyTree] | None = None,
    progress: bool = True,
    name: str = "gauss-newton",
    journal: Journal | None = None,
    callback: Callback | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> FitResult:
    """Trains a model by damped Gauss-Newton (Levenberg 1944, Marquardt 1963).

    Minimises a loss that is a sum of mean squares. Each step is judged on the batch
    that made it, by the ratio of the loss's fall to the fall that the linear model
    promised. The damping μ rises until the loss falls, and then follows that ratio
    (Nielsen 1999, IMM-REP-1999-05). Some rows of each λ make a step, and conjugate
    gradients refine it by all of them (Frangella, Tropp and Udell 2023,
    arXiv:2110.02820). It bends as the residuals do along it (geodesic acceleration,
    Transtrum and Sethna 2012, arXiv:1201.5885).

    Args:
        model: a HyperPINN or a baseline, with float64 weights.
        loss: `PINNLoss`, `MultistepLoss`, or one of your own, with float64 residuals.
        steps: how many steps to try.
        key: a JAX random key.
        redraw: steps on one batch before the next is drawn.
        damping: the first μ.
        floor: the least μ. A larger one keeps a step from fitting its batch too well,
            where that has few λ or is noisy.
        rank: rows kept for each λ. With many λ a few are enough; with one or a few λ
            keep as many as the main network has weights, or steps stall.
        frozen: picks what is not trained, e.g. `lambda m: m.trunk`.
        progress: whether to show a bar.
        name: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every
            step; the result is the same to the bit as without a stop.
        callback: see `fit`; called after every step.
        mesh: splits the λ of a batch (axis "lam") and the rows of each (axis "points")
            over devices, see `fit`. The dense system is solved on every one of them.

    Returns:
        A `FitResult` with the history of "total" and "damping".

    Whatever exception ends a training has an attribute `result`, see `fit`.

    Raises:
        TrainingStopped: a λ of a batch, its loss or its Jacobian is not finite. The
            journal sees none of it.
        Stopped: a stop was requested of the journal, and everything is saved.
        ValueError: weights that are not finite or not float64, or a residual that is
            not; `frozen` that picks nothing or everything; or the journal's arrays do
            not fit.
    """
    mesh = blocks.checked(mesh)
    model = only_float64("model", model)
    optimiser = GaussNewton(
        loss, rank, _trained(model, frozen), redraw=redraw, floor=floor, mesh=mesh
    )
    state = optimiser.init(model, damping)
    return run(
        optimiser,
        state if journal is None else optimiser.shaped(state),
        steps=steps,
        key=key,
        name=name,
        progress=progress,
        journal=journal,
        callback=callback,
        mesh=mesh,
    )


class State(NamedTuple):
    """Where a training stands: the loss and the damping are those of its batch."""

    model: AbstractModel
    loss: float
    damping: float
    batch: Any


class GaussNewton(AbstractOptimiser[State, AbstractModel]):
    """Steps of damped Gauss-Newton; each program is traced once and then kept.

    Args:
        loss: see `gauss_newton`, as for the others.
        rank: rows kept for each λ.
        trained: which leaves of a model are unknowns.
        redraw: steps on one batch.
        floor: the least damping.
        mesh: the devices.

    Attributes:
        total: from a model and a batch to the loss.
    """

    def __init__(
        self,
        loss: AbstractLeastSquares,
        rank: int,
        trained: PyTree,
        *,
        redraw: int = 8,
        floor: float = 1e-12,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self.loss, self.redraw, self.floor, self.mesh = loss, redraw, floor, mesh
        self._sample, self.total, self._system, self._solve = (
            blocks.on(mesh, programs.once(f))
            for f in (
                functools.partial(_sample, loss),
                functools.partial(_total, loss),
                functools.partial(linearise, loss, rank, trained),
                functools.partial(solve, loss, trained),
            )
        )

    def init(self, model: AbstractModel, damping: float = 1e-2) -> State:
        """The first state; the first step draws the first batch."""
        return State(model, 0.0, damping, None)

    def shaped(self, state: State) -> State:
        """The first state with the shapes of a batch, which a journal has to know."""
        draw = functools.partial(_sample, self.loss)
        batch = eqx.filter_eval_shape(draw, state.model, jr.key(0))
        return state._replace(batch=batch)

    def model(self, state: State) -> AbstractModel:
        """The model, on no mesh."""
        return blocks.here(self.mesh, state.model)

    def draw(self, model: AbstractModel, key: PRNGKeyArray) -> Batch:
        """A new batch."""
        return self._sample(model, key)

    def step(
        self, state: State, done: int, left: int, *, key: PRNGKeyArray
    ) -> tuple[State, int, dict[str, float]]:
        """One step, on a new batch if it is time for one."""
        model, loss, damping, batch = state
        draw_key, sketch_key = jr.split(jr.fold_in(key, done))
        if done % self.redraw == 0:
            batch = blocks.everywhere(self.mesh, self.draw(model, draw_key))
            loss = float(self.total(model, batch))
            if not jnp.all(jnp.isfinite(batch.lam)):
                raise Fault(f"a λ of the batch is not finite at step {done + 1}")
            if not np.isfinite(loss):
                raise Fault(f"the loss of the batch became {loss} at step {done + 1}")
        system = self._system(model, batch, sketch_key)
        size = float(system.size)
        if not np.isfinite(size):
            raise Fault(
                f"the Jacobian of the residuals became {size} at step {done + 1}"
            )
        for rise in (2, 4, 8, 16, 32, 64):
            # As an array: a Python float would be compiled in.
            trial, promised = self._solve(model, batch, system, jnp.asarray(damping))
            trial = blocks.everywhere(self.mesh, trial)
            after = float(self.total(trial, batch))
            # A system that cannot be factorised gives NaN: more damping.
            if after < loss and promised > 0:
                gain = (loss - after) / float(promised)
                damping *= min(max(1 / 3, 1 - (2 * gain - 1) ** 3), 2)
                model, loss, damping = trial, after, max(damping, self.floor)
                break
            damping = min(damping * rise, max(damping, _MOST * size))
        terms = {"total": loss, "damping": damping}
        return State(model, loss, damping, batch), 1, terms


def _sample(
    loss: AbstractLeastSquares, model: AbstractModel, key: PRNGKeyArray
) -> Batch:
    batch = loss.sample(model, key=key)
    checks.instance("loss.sample(model, key=key)", batch, Batch)
    checks.array("lam of the batch", batch.lam, "M", len(model.parameters))
    return batch


def _total(
    loss: AbstractLeastSquares, model: AbstractModel, batch: Batch
) -> Float[Array, ""]:
    def one(pair: tuple) -> Array:
        lam, items = pair
        rows = rows_of(loss, model(lam), lam, items)
        return jnp.sum(jnp.stack([jnp.sum(r**2) for r in rows]))

    return jnp.mean(blocks.map_lam(one, (batch.lam, batch.items)))


def only_float64(name: str, model: Model) -> Model:
    """A model that can be trained, in float64.

    Raises:
        ValueError: its weights are of another type, or not finite.
    """
    model = trainable(name, model)
    if dtype_of(model) != jnp.float64:
        raise ValueError(
            f"{name} has {dtype_of(model)} weights, expected float64: Gauss-Newton "
            f"squares condition numbers; hpx.cast({name}, jnp.float64) has them"
        )
    return model


def _trained(model: AbstractModel, frozen: Callable | None) -> PyTree:
    """Which leaves of the model are unknowns."""
    every = jax.tree.map(eqx.is_inexact_array, model)
    if frozen is None:
        return every
    try:
        trained = eqx.tree_at(frozen, every, replace_fn=lambda _: False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"frozen picks {frozen(model)!r}, expected a part of the model"
        ) from error
    left, whole = (count_parameters(eqx.filter(model, t)) for t in (trained, every))
    if not 0 < left < whole:
        raise ValueError(
            f"frozen picks {whole - left} of {whole} weights, expected some, not all"
        )
    return trained
