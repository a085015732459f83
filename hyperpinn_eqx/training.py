"""The training loop: chunks of steps under `lax.scan`, watched by a person."""

import functools
import time
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray
from tqdm import tqdm

from . import checks, devices
from .guards import check_loss, first_fault, largest, trainable
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

    def __check_init__(self) -> None:
        checks.instance("history", self.history, dict)
        checks.number("seconds", self.seconds, 0.0)


class TrainingStopped(RuntimeError):
    """A loss, a Jacobian or weights became NaN or infinite.

    Attributes:
        reason: what did, and at which step.
        result: a `FitResult` with the last good model, of the end of the chunk before
            (`fit`) or of the step before (`gauss_newton`).
    """

    def __init__(self, reason: str, result: FitResult):
        super().__init__(f"{reason}; `result` holds the last good model")
        self.reason, self.result = reason, result


class History:
    """Collects loss terms, shows them in a progress bar, and stops where told.

    Args:
        steps: how many there will be in all.
        what: the bar's label.
        progress: whether to show the bar.
        key: the training's random key; the journal holds it too.
        state: what a stopped training needs to go on; the attribute `state` holds it as
            the journal has it, if it knows this stage.
        journal: remembers state and rows under the name `what`.
        watch: see `Watch`.

    Raises:
        ValueError: `progress` is no bool, the journal's arrays do not fit, or it has
            another key.
        TypeError: `what` is no string, `journal` no journal, or `watch` no function.
    """

    def __init__(
        self,
        steps: int,
        what: str,
        progress: bool,
        key: PRNGKeyArray,
        state: Any = None,
        journal: Journal | None = None,
        watch: Watch | None = None,
    ):
        checks.instance("what", what, str)
        checks.choice("progress", progress, (True, False))
        checks.instance("journal", journal, (Journal, type(None)))
        if watch is not None:
            checks.function("watch", watch)
        rows: list[dict[str, float]] = []
        self.key = np.asarray(jr.key_data(key))
        if journal is not None:
            (kept, state), _, rows = journal.restore(what, (self.key, state))
            if not np.array_equal(kept, self.key):
                raise ValueError(
                    f"key holds {self.key}, expected {kept}: the training in "
                    f"{journal.path} began with that"
                )
        self.rows, self.state, self.watch = rows, state, watch
        self.what, self.journal = what, journal
        seconds = rows[-1]["seconds"] if rows else 0.0
        # Of several processes one shows the bar. A disabled bar does not count.
        shown = progress and jax.process_index() == 0
        self.done = int(rows[-1]["step"]) if rows else 0
        self.bar = tqdm(
            total=steps, desc=what, unit="step", disable=not shown, initial=self.done
        )
        self.start = time.perf_counter() - seconds
        if shown and self.done:
            # As if it had been there all along: time and mean speed are of all steps.
            self.bar.initial, self.bar.start_t = 0, self.bar.start_t - seconds
            self.bar.refresh()

    def add(self, model: object, steps: int, terms: dict[str, float]) -> None:
        """Records the terms of `steps` more steps, which have led to `model`."""
        self.done += steps
        self.bar.update(steps)
        self.bar.set_postfix({k: f"{v:.2e}" for k, v in terms.items()})
        now = time.perf_counter()
        row = {"step": float(self.done), "seconds": now - self.start, **terms}
        if self.watch is not None:
            found = self.watch(model, row["seconds"])
            checks.instance("watch(model, seconds)", found, dict)
            row |= {name: float(value) for name, value in found.items()}
            self.start += time.perf_counter() - now
        self.rows.append(row)

    def keep(self, state: Any) -> None:
        """Lets the journal remember where the training stands, if there is one.

        Raises:
            Stopped: a stop was requested of the journal, and everything is saved.
        """
        if self.journal is not None:
            self.journal.keep(self.what, self.done, (self.key, state), self.rows)

    def stop(self, reason: str, model: Model) -> NoReturn:
        """Ends the training.

        Raises:
            TrainingStopped: with this reason, and a result that holds the model.
        """
        raise TrainingStopped(reason, self.result(model))

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
    optimiser: optax.GradientTransformation | optax.MultiSteps,
    *,
    steps: int,
    key: PRNGKeyArray,
    chunk: int = 500,
    progress: bool = True,
    what: str = "fit",
    journal: Journal | None = None,
    watch: Watch | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> FitResult[Model]:
    """Trains a model by any Optax optimiser.

    Args:
        model: any Equinox module, with weights of one floating-point type.
        loss: from a model and a key to a `Loss` in the precision of the weights; it
            draws its own points, anew at every step.
        optimiser: an Optax optimiser, with its schedule.
        steps: how many updates to make.
        key: a JAX random key.
        chunk: steps per compiled chunk; progress and history move by chunks.
        progress: whether to show a bar with loss terms, speed and time left.
        what: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every
            chunk; the result is the same to the bit as without a stop.
        watch: see `Watch`; called after every chunk.
        mesh: devices, with an axis "lam", "points" or both. The λ of a batch and the
            points of each are split over them, see `shard`; the result is that of one
            device to round-off.

    Returns:
        A `FitResult`; its history holds the mean of each term over a chunk.

    Raises:
        TrainingStopped: a loss term or the weights became NaN or infinite. Found at
            the end of the chunk, before the journal sees any of it.
        Stopped: a stop was requested of the journal, and everything is saved.
        ValueError: `steps` or `chunk` below 1; weights that are not finite or of
            several types, or a loss of another type; or the journal's arrays do not
            fit.
        TypeError: an argument of another kind, or a `loss` that returns no `Loss`.

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
    mesh = devices.checked(mesh)
    checks.function("loss", loss)
    checks.instance(
        "optimiser", optimiser, (optax.GradientTransformation, optax.MultiSteps)
    )
    steps, chunk = checks.count("steps", steps), checks.count("chunk", chunk)
    checks.random_key("key", key)
    model = trainable("model", model)
    check_loss(loss, model, key)
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def objective(params: Model, key: PRNGKeyArray) -> tuple[jax.Array, dict]:
        out = loss(eqx.combine(params, static), key)
        return out.total, {"total": out.total, **out.terms}

    def step(carry: tuple, i: Int[Array, ""]) -> tuple[tuple, tuple]:
        params, state = carry
        grads, terms = jax.grad(objective, has_aux=True)(params, jr.fold_in(key, i))
        # Optax mixes types, which JAX's strict mode would forbid.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (terms, largest(params))

    run = devices.on(mesh, jax.jit(functools.partial(jax.lax.scan, step)))

    carry = (params, optimiser.init(params))
    history = History(steps, what, progress, key, carry, journal, watch)
    carry = devices.everywhere(mesh, history.state)

    def whole(carry: tuple) -> Model:
        return eqx.combine(devices.here(mesh, carry[0]), static)

    with history.bar:
        while history.done < steps:
            size = min(chunk, steps - history.done)
            new, seen = run(carry, jnp.arange(history.done, history.done + size))
            terms, weights = jax.tree.map(lambda a: np.asarray(a, np.float64), seen)
            if reason := first_fault(terms, weights, history.done):
                history.stop(reason, whole(carry))
            carry = devices.everywhere(mesh, new)
            means = {name: float(np.mean(value)) for name, value in terms.items()}
            history.add(whole(carry), size, means)
            history.keep(carry)
    return history.result(whole(carry))
