"""The training loop: chunks of steps under `lax.scan`, watched by a person."""

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray
from tqdm import tqdm

from .journal import Journal
from .losses import Loss

Model = TypeVar("Model")
# From the model and the seconds so far to more entries of a history's row, or none: it
# looks at a training from outside, and its own time does not count.
Watch = Callable[[Any, float], dict[str, float]]


class FitResult(eqx.Module, Generic[Model]):
    """What a training run returns.

    Attributes:
        model: the trained model.
        history: "step", "seconds", "total" and every loss term, each a NumPy array
            with one entry a chunk (`fit`) or an iteration (`gauss_newton`); NaN where
            there is none.
        seconds: wall time, compilation and the runs before a stop included.
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
    """Collects loss terms, shows them in a progress bar, and stops on NaN.

    Args:
        steps: how many there will be in all.
        what: the bar's label.
        progress: whether to show the bar.
        state: what a stopped training needs to go on; the attribute `state` holds it as
            the journal has it, if it knows this stage.
        journal: remembers state and rows under the name `what`.
        watch: see `Watch`.
    """

    def __init__(
        self,
        steps: int,
        what: str,
        progress: bool,
        state: Any = None,
        journal: Journal | None = None,
        watch: Watch | None = None,
    ):
        rows: list[dict[str, float]] = []
        if journal is not None:
            state, _, rows = journal.restore(what, state)
        self.rows, self.state, self.watch = rows, state, watch
        self.what, self.journal = what, journal
        seconds = rows[-1]["seconds"] if rows else 0.0
        # A disabled bar does not count.
        self.done = int(rows[-1]["step"]) if rows else 0
        self.bar = tqdm(
            total=steps, desc=what, unit="step", disable=not progress, initial=self.done
        )
        self.start = time.perf_counter() - seconds
        if progress and self.done:
            # As if it had been there all along: time and mean speed are of all steps.
            self.bar.initial, self.bar.start_t = 0, self.bar.start_t - seconds
            self.bar.refresh()

    def add(
        self, good: object, steps: int, terms: dict[str, float], new: object = None
    ) -> None:
        """Records the terms after `steps` more steps.

        Args:
            good: the last model whose losses are known.
            steps: how many.
            terms: what to record.
            new: the model after these steps, if it is not `good`.

        Raises:
            TrainingStopped: a term is not finite; its result holds `good`.
        """
        bad = [name for name, value in terms.items() if not np.isfinite(value)]
        if bad:
            self.bar.close()
            raise TrainingStopped(
                f"the loss term {bad[0]!r} became {terms[bad[0]]} between steps "
                f"{self.done} and {self.done + steps}; the exception's `result` holds "
                f"the model of step {self.done}",
                self.result(good),
            )
        self.done += steps
        self.bar.update(steps)
        self.bar.set_postfix({k: f"{v:.2e}" for k, v in terms.items()})
        now = time.perf_counter()
        row = {"step": float(self.done), "seconds": now - self.start, **terms}
        if self.watch is not None:
            row |= self.watch(good if new is None else new, row["seconds"])
            self.start += time.perf_counter() - now
        self.rows.append(row)

    def keep(self, state: Any) -> None:
        """Lets the journal remember where the training stands, if there is one.

        Raises:
            Stopped: a stop was requested of the journal, and everything is saved.
        """
        if self.journal is not None:
            self.journal.keep(self.what, self.done, state, self.rows)

    def result(self, model: Model) -> FitResult[Model]:
        """Closes the bar and returns what there is."""
        self.bar.close()
        names = dict.fromkeys(name for row in self.rows for name in row)
        nan = float("nan")
        history = {k: np.array([row.get(k, nan) for row in self.rows]) for k in names}
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
    journal: Journal | None = None,
    watch: Watch | None = None,
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
        what: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every
            chunk; the result is the same to the bit as without a stop.
        watch: see `Watch`; called after every chunk.

    Returns:
        A `FitResult`; its history holds the mean of each term over a chunk.

    Raises:
        TrainingStopped: a loss term became NaN or infinite.
        Stopped: a stop was requested of the journal, and everything is saved.
        ValueError: `steps` or `chunk` below 1, or the journal's arrays do not fit.

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

    carry = (params, optimiser.init(params))
    history = History(steps, what, progress, carry, journal, watch)
    carry = history.state
    with history.bar:
        while history.done < steps:
            size = min(chunk, steps - history.done)
            new, terms = run(carry, jnp.arange(history.done, history.done + size))
            terms = {name: float(value) for name, value in terms.items()}
            old, carry = carry, new
            before, after = (eqx.combine(c[0], static) for c in (old, new))
            history.add(before, size, terms, after)
            history.keep(carry)
    return history.result(eqx.combine(carry[0], static))
