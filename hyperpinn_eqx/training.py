"""The training loop: chunks of steps under `lax.scan`, watched by a person."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray
from tqdm import tqdm

from .losses import Loss

Model = TypeVar("Model")


class FitResult(eqx.Module, Generic[Model]):
    """What a training run returns.

    Attributes:
        model: the trained model.
        history: "step", "total" and every loss term, each a NumPy array with one
            entry a chunk (`fit`) or an iteration (`gauss_newton`).
        seconds: wall time, compilation included.
    """

    model: Model
    history: dict[str, np.ndarray]
    seconds: float


class TrainingStopped(RuntimeError):
    """A loss became NaN or infinite.

    Attributes:
        result: a `FitResult` with the last model whose losses were all finite.
    """

    def __init__(self, message: str, result: FitResult):
        super().__init__(message)
        self.result = result


class History:
    """Collects loss terms, shows them in a progress bar, and stops on NaN."""

    def __init__(self, steps: int, what: str, progress: bool):
        self.rows: list[dict[str, float]] = []
        self.done = 0  # a disabled bar does not count
        self.bar = tqdm(total=steps, desc=what, unit="step", disable=not progress)
        self.start = time.perf_counter()

    def add(self, model: object, steps: int, terms: dict[str, float]) -> None:
        """Records the terms after `steps` more steps.

        Raises:
            TrainingStopped: a term is not finite; `model` is the last good one.
        """
        bad = [name for name, value in terms.items() if not np.isfinite(value)]
        if bad:
            self.bar.close()
            raise TrainingStopped(
                f"the loss term {bad[0]!r} became {terms[bad[0]]} between steps "
                f"{self.done} and {self.done + steps}; the exception's `result` holds "
                f"the model of step {self.done}",
                self.result(model),
            )
        self.done += steps
        self.bar.update(steps)
        self.bar.set_postfix({k: f"{v:.2e}" for k, v in terms.items()})
        self.rows.append({"step": float(self.done), **terms})

    def result(self, model: Model) -> FitResult[Model]:
        """Closes the bar and returns what there is."""
        self.bar.close()
        names = self.rows[0] if self.rows else []
        history = {k: np.array([row[k] for row in self.rows]) for k in names}
        return FitResult(model, history, time.perf_counter() - self.start)


def fit(
    model: Model,
    loss: Callable[[Model, PRNGKeyArray], Loss],
    optimiser: optax.GradientTransformation,
    *,
    steps: int,
    key: PRNGKeyArray,
    chunk: int = 500,
    progress: bool = True,
    what: str = "fit",
) -> FitResult[Model]:
    """Trains a model by any Optax optimiser.

    Args:
        model: any Equinox module.
        loss: from a model and a key to a `Loss`; it draws its own points, anew at
            every step.
        optimiser: an Optax optimiser, with its schedule.
        steps: how many updates to make.
        key: a JAX random key.
        chunk: steps per compiled chunk; progress and history move by chunks.
        progress: whether to show a bar with loss terms, speed and time left.
        what: the bar's label.

    Returns:
        A `FitResult`; its history holds the mean of each term over a chunk.

    Raises:
        TrainingStopped: a loss term became NaN or infinite.
        ValueError: `steps` or `chunk` below 1.

    >>> loss = lambda x, key: Loss({"square": (x - 3.0) ** 2})
    >>> result = fit(
    ...     jnp.zeros(()),
    ...     loss,
    ...     optax.adam(0.1),
    ...     steps=500,
    ...     key=jr.key(0),
    ...     progress=False,
    ... )
    >>> print(f"{result.model:.3f}")
    3.000
    """
    for name, value in (("steps", steps), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name} = {value}, expected at least 1")
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def objective(params: Model, key: PRNGKeyArray) -> tuple[jax.Array, dict]:
        out = loss(eqx.combine(params, static), key)
        return out.total, {"total": out.total, **out.terms}

    def step(carry: tuple, i: Int[Array, ""]) -> tuple[tuple, dict]:
        params, state = carry
        grads, terms = jax.grad(objective, has_aux=True)(params, jr.fold_in(key, i))
        # Optax mixes types, which JAX's strict mode would forbid.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), terms

    @jax.jit
    def run(carry: tuple, indices: Int[Array, " n"]) -> tuple[tuple, dict]:
        carry, terms = jax.lax.scan(step, carry, indices)
        # Weights that the last step ruins show in no loss of this chunk.
        leaves = jax.tree.leaves(carry[0])
        good = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
        terms = {k: jnp.where(good, jnp.mean(v), jnp.nan) for k, v in terms.items()}
        return carry, terms

    history = History(steps, what, progress)
    carry = (params, optimiser.init(params))
    while history.done < steps:
        size = min(chunk, steps - history.done)
        new, terms = run(carry, jnp.arange(history.done, history.done + size))
        terms = {name: float(value) for name, value in terms.items()}
        history.add(eqx.combine(carry[0], static), size, terms)
        carry = new
    return history.result(eqx.combine(carry[0], static))
