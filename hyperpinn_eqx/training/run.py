"""The loop around every optimiser: progress bar, clock, journal and callback."""

import time
from collections.abc import Callable
from typing import Any, Generic, NoReturn

import jax
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray
from tqdm import tqdm

from .. import _arguments as checks
from .. import _blocks as devices
from .journal import Journal
from .result import FitResult, Model, TrainingStopped, attach

# From the model and the seconds so far to more entries of a history's row, or none: it
# looks at a training from outside, and its own time does not count.
Watch = Callable[[Any, float], dict[str, Any]]


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
