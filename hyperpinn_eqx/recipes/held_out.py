"""A budget that is not chosen beforehand: steps until a held-out loss is level."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.random as jr
from jaxtyping import PRNGKeyArray

from .. import _programs as programs
from ..loss import Loss
from ..networks.model import AbstractModel
from ..physics.pinn import PINNLoss
from ..physics.sampling import log_uniform
from ..training.gauss_newton import GaussNewton, State
from ..training.run import AbstractOptimiser

# Every so many steps the loss is held out; it is level once so many values in a row are
# more than the given part of the one before them.
EVERY, PATIENCE, PART = 8, 30, 0.5


class Watched(NamedTuple):
    """Where such a training stands."""

    inner: State
    best: AbstractModel
    lowest: float
    reference: float
    level: int


class UntilLevel(AbstractOptimiser[Watched, AbstractModel]):
    """Gauss-Newton that ends when the loss at λ and points it never sees is level.

    The history has that loss as "held_out". The model is that of its least value: steps
    that fit their batch too well are forgotten.

    Args:
        newton: makes the steps.
        loss: what is held out is drawn like its batches, but twice as many λ, uniform
            in scaled units, and uniform points.
        key: draws what is held out.
    """

    def __init__(self, newton: GaussNewton, loss: PINNLoss, *, key: PRNGKeyArray):
        self.newton, self.key = newton, key
        self.loss = dataclasses.replace(
            loss, n_lam=2 * loss.n_lam, sample_lam=log_uniform, adaptive=False
        )
        self.value = programs.once(lambda model, batch: self.loss(model, batch))
        self.batch: Any = None

    def init(self, model: AbstractModel, damping: float = 1e-2) -> Watched:
        """The first state."""
        state = self.newton.init(model, damping)
        far = float("inf")
        return Watched(self.newton.shaped(state), model, far, far, 0)

    def model(self, state: Watched) -> AbstractModel:
        """The best model so far."""
        return state.best

    def look(self, model: AbstractModel) -> Loss:
        """The held-out loss of a model."""
        if self.batch is None:
            self.batch = self.loss.sample(model, key=jr.clone(self.key))
        return jax.block_until_ready(self.value(model, self.batch))

    def finished(self, state: Watched) -> bool:
        """Whether the loss has been level for long enough."""
        return state.level >= PATIENCE

    def step(
        self, state: Watched, done: int, left: int, *, key: PRNGKeyArray
    ) -> tuple[Watched, int, dict[str, float]]:
        """One step, and now and then the held-out loss."""
        inner, n, terms = self.newton.step(state.inner, done, left, key=key)
        _, best, lowest, reference, level = state
        if (done + 1) % EVERY == 0 or left == 1:
            model = self.newton.model(inner)
            value = float(self.look(model).total)
            terms = {**terms, "held_out": value}
            if value < lowest:
                best, lowest = model, value
            level += 1
            # The least value so far would follow a slow fall step by step.
            if value < PART * reference:
                reference, level = value, 0
        return Watched(inner, best, lowest, reference, level), n, terms
