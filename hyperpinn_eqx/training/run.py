"""The one loop around every optimiser: bar, clock, journal, callback, and faults."""

import abc
import time
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

import jax
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray
from tqdm import tqdm

from .. import _blocks as blocks
from .journal import Journal
from .result import FitResult, Model, TrainingStopped, attach

State = TypeVar("State")
# From the model and the seconds so far to more entries of a history's row, or none: it
# looks at a training from outside, and its own time does not count.
Callback = Callable[[Any, float], dict[str, Any]]


class Fault(Exception):
    """What went wrong in a step; `run` makes a `TrainingStopped` of it."""


class AbstractOptimiser(abc.ABC, Generic[State, Model]):
    """What a training does at each step; it knows no bar, no file, and no clock."""

    @abc.abstractmethod
    def init(self, model: Model) -> State:
        """Where a training begins."""

    @abc.abstractmethod
    def step(
        self, state: State, done: int, left: int, *, key: PRNGKeyArray
    ) -> tuple[State, int, dict[str, float]]:
        """The state after some more steps, how many these were, and their terms.

        Args:
            state: where the training stands.
            done: how many steps have led to it.
            left: how many there may still be.
            key: the training's random key, the same at every step.

        Raises:
            Fault: something is not finite.
        """

    @abc.abstractmethod
    def model(self, state: State) -> Model:
        """The model of a state, whole and on no mesh."""

    def finished(self, state: State) -> bool:
        """Whether more steps would be of no use."""
        return False


def run(
    optimiser: AbstractOptimiser[State, Model],
    state: State,
    *,
    steps: int,
    key: PRNGKeyArray,
    name: str,
    progress: bool,
    journal: Journal | None = None,
    callback: Callback | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> FitResult[Model]:
    """Makes so many steps, watched by a person, and survives what may come between.

    Args:
        optimiser: what a step does.
        state: where it begins; a journal that knows this stage knows better.
        steps: how many there will be in all.
        key: the training's random key, for the journal to compare.
        name: the bar's label, and the name of the stage in the journal.
        progress: whether to show the bar.
        journal: remembers state and history after every step.
        callback: see `Callback`.
        mesh: the devices that hold the state.

    Raises:
        TrainingStopped: a `Fault`, with the result so far.
        Stopped: a stop was requested of the journal, and everything is saved.
        ValueError: the journal's arrays do not fit, or it has another key, or more
            steps.
    """
    model = optimiser.model
    with History(
        steps, name, progress, key, state, model, journal, callback
    ) as history:
        while not (history.over or optimiser.finished(history.state)):
            now = blocks.everywhere(mesh, history.state)
            try:
                new, n, terms = optimiser.step(
                    now, history.done, steps - history.done, key=key
                )
            except Fault as fault:
                history.stop(str(fault))
            history.add(new, n, terms)
        return history.result()


class History(Generic[Model]):
    """Collects loss terms, shows them in a progress bar, and stops where told.

    The loop runs inside of it as a context manager: whatever exception ends it, be it
    KeyboardInterrupt, gets an attribute `result`, with all until the last `add`.

    Args:
        steps: how many there will be in all.
        name: the bar's label.
        progress: whether to show the bar.
        key: the training's random key; the journal holds it too.
        state: what a stopped training needs to go on; the attribute `state` holds it as
            the journal has it, if it knows this stage.
        model: from a state to the model.
        journal: remembers state and rows under that name.
        callback: see `Callback`.

    Raises:
        ValueError: the journal's arrays do not fit, or it has another key, or more
            steps.
    """

    def __init__(
        self,
        steps: int,
        name: str,
        progress: bool,
        key: PRNGKeyArray,
        state: Any,
        model: Callable[[Any], Model],
        journal: Journal | None = None,
        callback: Callback | None = None,
    ):
        rows: list[dict[str, float]] = []
        self.key = np.asarray(jr.key_data(key))
        if journal is not None:
            (kept, state), _, rows = journal.restore(name, (self.key, state))
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
        self.steps, self.name, self.model = steps, name, model
        self.rows, self.journal, self.callback = rows, journal, callback
        # In one attribute, since an interrupt can come between any two statements.
        self.last = len(rows), state
        self.stopped = False
        seconds = rows[-1]["seconds"] if rows else 0.0
        # Of several processes one shows the bar. A disabled bar does not count.
        shown = progress and jax.process_index() == 0
        self.done = done
        self.bar = tqdm(
            total=steps, desc=name, unit="step", disable=not shown, initial=self.done
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
        """Whether all steps are done, or `callback` has ended the training."""
        return self.stopped or self.done >= self.steps

    def __enter__(self) -> "History[Model]":
        if self.rows and self.rows[-1].get("stop"):
            # It ended here, by what may be another `callback` now.
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
            TypeError: `callback` returns no dictionary, or a "stop" that is no bool.
            ValueError: `callback` returns an entry that the row has already.
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
                f"callback(model, seconds) has an entry {both[0]!r}, expected another "
                "name: the history has that for something else"
            )
        row |= found
        if self.journal is not None:
            self.journal.keep(self.name, self.done, (self.key, state), self.rows)

    def _look(self) -> dict[str, float]:
        """What `callback` finds, and whether it ends the training."""
        if self.callback is None:
            return {}
        now = time.perf_counter()
        found = self.callback(self.model(self.state), now - self.start)
        stop = found.get("stop", False) if isinstance(found, dict) else None
        if np.ndim(stop) or np.asarray(stop).dtype != bool:
            raise TypeError(
                f"callback(model, seconds) = {found!r}, expected a dict of numbers; "
                '{"stop": True} in it ends the training'
            )
        # One process that ends alone would leave the others waiting for its share.
        self.stopped = blocks.in_any_process(bool(stop))
        entries = {entry: float(value) for entry, value in found.items()}
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
        names = dict.fromkeys(entry for row in rows for entry in row)
        nan = float("nan")
        history = {k: np.array([row.get(k, nan) for row in rows]) for k in names}
        seconds = time.perf_counter() - self.start
        return FitResult(self.model(state), history, seconds)
