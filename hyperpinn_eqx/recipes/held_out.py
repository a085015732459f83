"""A budget that is not chosen beforehand: steps until a held-out loss is level."""

import dataclasses
from typing import NamedTuple

import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from .. import _programs as programs
from ..loss import Batch, Loss
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
    """Gauss-Newton until the loss at λ and points it never sees is small, or level.

    The history has that loss as "held_out". The model is that of its least value: steps
    that fit their batch too well are forgotten.

    Args:
        newton: makes the steps.
        loss: two batches like its own are held out, but with λ that are uniform in
            scaled units, and uniform points.
        tolerance: what is small.
        key: draws what is held out.
    """

    def __init__(
        self,
        newton: GaussNewton,
        loss: PINNLoss,
        tolerance: float = 0.0,
        *,
        key: PRNGKeyArray,
    ):
        self.newton, self.tolerance, self.keys = newton, tolerance, jr.split(key)
        self.loss = dataclasses.replace(loss, sample_lam=log_uniform, adaptive=False)
        self.batches = list[Batch]()

    def init(self, model: AbstractModel, damping: float = 1e-2) -> Watched:
        """The first state."""
        state = self.newton.init(model, damping)
        far = float("inf")
        return Watched(self.newton.shaped(state), model, far, far, 0)

    def model(self, state: Watched) -> AbstractModel:
        """The best model so far."""
        return state.best

    def look(self, model: AbstractModel) -> float:
        """The held-out loss of a model."""
        # Of the shape of a training's batch, so that it is the same program.
        found = [self.newton.total(model, batch) for batch in self._held_out(model)]
        return float(np.mean(found))

    def terms(self, model: AbstractModel) -> Loss:
        """The same by term, for half of what is held out."""
        return programs.call(self.loss, model, self._held_out(model)[0])

    def _held_out(self, model: AbstractModel) -> list[Batch]:
        if not self.batches:
            self.batches = [self.loss.sample(model, key=jr.clone(k)) for k in self.keys]
        return self.batches

    def finished(self, state: Watched) -> bool:
        """Whether the loss is small, or has been level for long enough."""
        return state.lowest <= self.tolerance or state.level >= PATIENCE

    def step(
        self, state: Watched, done: int, left: int, *, key: PRNGKeyArray
    ) -> tuple[Watched, int, dict[str, float]]:
        """One step, and now and then the held-out loss."""
        inner, n, terms = self.newton.step(state.inner, done, left, key=key)
        _, best, lowest, reference, level = state
        if (done + 1) % EVERY == 0 or left == 1:
            model = self.newton.model(inner)
            value = self.look(model)
            terms = {**terms, "held_out": value}
            if value < lowest:
                best, lowest = model, value
            level += 1
            # The least value so far would follow a slow fall step by step.
            if value < PART * reference:
                reference, level = value, 0
        return Watched(inner, best, lowest, reference, level), n, terms
