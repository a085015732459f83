"""The training loop: chunks of steps under `lax.scan`, watched by a person."""

import contextlib
import functools
import inspect
import pickle
import time
from collections.abc import Callable, Iterator
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
Watch = Callable[[Any, float], dict[str, Any]]


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


class PartialResult(FitResult[Model]):
    """The result so far, on the exception that ended a training.

    The exception has to reach another process whatever the model is: one that cannot be
    pickled is None there.
    """

    def __reduce__(self) -> tuple:
        model: Model | None = self.model
        try:
            pickle.dumps(model)
        except Exception:  # Pickle raises what it likes, as does a class of a user's.
            model = None
        return type(self), (model, self.history, self.seconds)


def attach(error: BaseException, result: FitResult) -> None:
    """Gives any exception the attribute `result`."""
    kept = PartialResult(result.model, result.history, result.seconds)
    # Also where a class forbids new attributes, as a frozen dataclass does.
    vars(error)["result"] = kept


@contextlib.contextmanager
def converting(convert: Callable[[FitResult], FitResult]) -> Iterator[None]:
    """Converts the `result` of whatever exception ends a training inside."""
    try:
        yield
    except BaseException as error:
        result = getattr(error, "result", None)
        if isinstance(result, FitResult):
            attach(error, convert(result))
        raise


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

    def __reduce__(self) -> tuple:
        return type(self), (self.reason, self.result), self.__dict__


class History(Generic[Model]):
    """Collects loss terms, shows them in a progress bar, and stops where told.

    The loop runs inside of it as a context manager: whatever exception ends it, be it
    KeyboardInterrupt, gets an attribute `result`, with all until the last `add`.

    Args:
        steps: how many there will be in all.
        what: the bar's label.
        progress: whether to show the bar.
        key: the training's random key; the journal holds it too.
        state: what a stopped training needs to go on; the attribute `state` holds it as
            the journal has it, if it knows this stage.
        model: from a state to the model.
        journal: remembers state and rows under the name `what`.
        watch: see `Watch`.

    Raises:
        ValueError: `progress` is no bool, the journal's arrays do not fit, or it has
            another key, or more steps.
        TypeError: `what` is no string, `journal` no journal, or `watch` no function.
    """

    def __init__(
        self,
        steps: int,
        what: str,
        progress: bool,
        key: PRNGKeyArray,
        state: Any,
        model: Callable[[Any], Model],
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
        done = int(rows[-1]["step"]) if rows else 0
        if journal is not None and done > steps:
            raise ValueError(
                f"steps = {steps}, expected at least {done}, which the training in "
                f"{journal.path} has done"
            )
        self.steps, self.what, self.model = steps, what, model
        self.rows, self.journal, self.watch = rows, journal, watch
        # In one attribute, since an interrupt can come between any two statements.
        self.last = len(rows), state
        self.stopped = False
        seconds = rows[-1]["seconds"] if rows else 0.0
        # Of several processes one shows the bar. A disabled bar does not count.
        shown = progress and jax.process_index() == 0
        self.done = done
        self.bar = tqdm(
            total=steps, desc=what, unit="step", disable=not shown, initial=self.done
        )
        self.start = time.perf_counter() - seconds
        if shown and self.done:
            # As if it had been there all along: time and mean speed are of all steps.
            self.bar.initial, self.bar.start_t = 0, self.bar.start_t - seconds
            self.bar.refresh()

    @property
    def state(self) -> Any:
        """Where the training stands."""
        return self.last[1]

    @property
    def over(self) -> bool:
        """Whether all steps are done, or `watch` has ended the training."""
        return self.stopped or self.done >= self.steps

    def __enter__(self) -> "History[Model]":
        if self.rows and self.rows[-1].get("stop"):
            # It ended here, by what may be another `watch` now.
            self._look()
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is not None:
            attach(error, self.result())
        self.bar.close()

    def add(self, state: Any, steps: int, terms: dict[str, float]) -> None:
        """Records the terms of `steps` more steps, which have led to `state`.

        Raises:
            Stopped: a stop was requested of the journal, and everything is saved.
            TypeError: `watch` returns no dictionary, or a "stop" that is no bool.
            ValueError: `watch` returns an entry that the row has already.
        """
        self.done += steps
        self.bar.update(steps)
        self.bar.set_postfix({k: f"{v:.2e}" for k, v in terms.items()})
        now = time.perf_counter()
        row = {"step": float(self.done), "seconds": now - self.start, **terms}
        self.rows.append(row)
        self.last = len(self.rows), state
        found = self._look()
        if both := sorted(row.keys() & found.keys()):
            raise ValueError(
                f"watch(model, seconds) has an entry {both[0]!r}, expected another "
                "name: the history has that for something else"
            )
        row |= found
        if self.journal is not None:
            self.journal.keep(self.what, self.done, (self.key, state), self.rows)

    def _look(self) -> dict[str, float]:
        """What `watch` finds, and whether it ends the training."""
        if self.watch is None:
            return {}
        now = time.perf_counter()
        found = self.watch(self.model(self.state), now - self.start)
        stop = found.get("stop", False) if isinstance(found, dict) else None
        if np.ndim(stop) or np.asarray(stop).dtype != bool:
            raise TypeError(
                f"watch(model, seconds) = {found!r}, expected a dict of numbers; "
                '{"stop": True} in it ends the training'
            )
        # One process that ends alone would leave the others waiting for its share.
        self.stopped = devices.in_any_process(bool(stop))
        entries = {name: float(value) for name, value in found.items()}
        self.start += time.perf_counter() - now
        return entries

    def stop(self, reason: str) -> NoReturn:
        """Ends the training for a fault that came up after the last `add`.

        Raises:
            TrainingStopped: with this reason, and the result so far.
        """
        raise TrainingStopped(reason, self.result())

    def result(self) -> FitResult[Model]:
        """Closes the bar and returns what there is."""
        self.bar.close()
        count, state = self.last
        rows = self.rows[:count]
        names = dict.fromkeys(name for row in rows for name in row)
        nan = float("nan")
        history = {k: np.array([row.get(k, nan) for row in rows]) for k in names}
        seconds = time.perf_counter() - self.start
        return FitResult(self.model(state), history, seconds)


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
        optimiser: an Optax optimiser, with its schedule. One that needs the loss, such
            as `optax.lbfgs()` for its line search, gets that of the step's own key.
        steps: how many updates to make.
        key: a JAX random key.
        chunk: steps per compiled chunk; progress and history move by chunks.
        progress: whether to show a bar with loss terms, speed and time left.
        what: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every
            chunk; the result is the same to the bit as without a stop.
        watch: see `Watch`; called after every chunk. With {"stop": True} in what it
            returns, the training ends, and its result is returned as usual.
        mesh: devices, with an axis "lam", "points" or both. The λ of a batch and the
            points of each are split over them, see `shard`; the result is that of one
            device to round-off.

    Returns:
        A `FitResult`; its history holds the mean of each term over a chunk.

    Whatever exception ends a training, be it KeyboardInterrupt or one of `watch`, has
    an attribute `result`: a `FitResult` with all until the last whole chunk. In a
    notebook the last exception is `sys.last_value`.

    Raises:
        TrainingStopped: a loss term or the weights became NaN or infinite. Found at
            the end of the chunk, before the journal sees any of it.
        Stopped: a stop was requested of the journal, and everything is saved.
        ValueError: `steps` or `chunk` below 1; weights that are not finite or of
            several types, or a loss of another type; or a journal whose arrays do not
            fit, or with more steps.
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
    taken = _taken(optimiser)

    def objective(params: Model, key: PRNGKeyArray) -> tuple[jax.Array, dict]:
        out = loss(eqx.combine(params, static), key)
        return out.total, {"total": out.total, **out.terms}

    def step(carry: tuple, i: Int[Array, ""]) -> tuple[tuple, tuple]:
        params, state = carry
        step_key = jr.fold_in(key, i)

        def again() -> PRNGKeyArray:
            # A line search has to see the loss that the step began with.
            return jr.clone(step_key)

        # Optax's line searches pass on to it what else they are given.
        def value(params: Model, obj_fn: Any = None, grad_fn: Any = None) -> jax.Array:
            return objective(params, again())[0]

        grads, terms = jax.grad(objective, has_aux=True)(params, again())
        extra = {
            "value": terms["total"],
            "grad": grads,
            "value_fn": value,
            "obj_fn": value,
            "grad_fn": lambda params, _: jax.grad(value)(params),
        }
        # Optax mixes types, which JAX's strict mode would forbid.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(
                grads, state, params, **{name: extra[name] for name in taken}
            )
        params = optax.apply_updates(params, updates)
        return (params, state), (terms, largest(params))

    run = devices.on(mesh, jax.jit(functools.partial(jax.lax.scan, step)))

    def whole(carry: tuple) -> Model:
        return eqx.combine(devices.here(mesh, carry[0]), static)

    carry = (params, optimiser.init(params))
    with History(steps, what, progress, key, carry, whole, journal, watch) as history:
        carry = devices.everywhere(mesh, history.state)
        while not history.over:
            size = min(chunk, steps - history.done)
            new, seen = run(carry, jnp.arange(history.done, history.done + size))
            terms, weights = jax.tree.map(lambda a: np.asarray(a, np.float64), seen)
            if reason := first_fault(terms, weights, history.done):
                history.stop(reason)
            carry = devices.everywhere(mesh, new)
            means = {name: float(np.mean(value)) for name, value in terms.items()}
            history.add(carry, size, means)
        return history.result()


def _taken(optimiser: optax.GradientTransformation | optax.MultiSteps) -> list[str]:
    """Those of the arguments that `fit` has to offer which an optimiser's update takes.

    Some take whatever comes, some nothing but what they need.
    """
    if not isinstance(
        optimiser, optax.GradientTransformationExtraArgs | optax.MultiSteps
    ):
        return []
    offered = ["value", "grad", "value_fn", "obj_fn", "grad_fn"]
    known = inspect.signature(optimiser.update).parameters
    if any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return offered
    return [name for name in offered if name in known]
