"""Stopping a training between two steps, and going on as if nothing had happened."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import signal
import threading
import time
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from .checkpoint import write_bytes

_FORMAT = {"format": "hyperpinn_eqx journal", "version": 1}
_NO_STAGE: dict[str, Any] = {"stage": None, "step": 0, "rows": []}


class Stopped(RuntimeError):
    """A training stopped as requested; the message says what is saved, and where."""


class Journal:
    """What a training has to remember to go on after a stop, in one file.

    One JSON line, the model after the last finished stage, and the state of the
    unfinished one. Random keys are not in it: training folds its step into its key.

    As a context manager it takes SIGINT and SIGTERM as the request to stop after this
    step; a second SIGINT raises KeyboardInterrupt at once.

    Args:
        path: the file.
        config: what decides the training (name, seed, recipe), JSON-able.
        resume: goes on from the file if there is one; else it will be overwritten.
        every: the least number of seconds between two writes of `keep`.

    Raises:
        ValueError: the file to resume is damaged, no journal, or of another `config`.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        config: dict,
        *,
        resume: bool = False,
        every: float = 10.0,
    ):
        self.path, self._every = pathlib.Path(path), every
        self._signal: str | None = None
        self._handlers: dict[int, Any] = {}
        self._head = _plain({**_FORMAT, "config": config, "finished": {}, **_NO_STAGE})
        self._model = self._state = b""
        self._written = time.perf_counter()
        if resume and self.path.exists():
            self._read()

    def finished(self, stage: str) -> dict | None:
        """What `finish` recorded about a stage; None if it is not finished."""
        return self._head["finished"].get(stage)

    def restore(self, stage: str, state: PyTree) -> tuple[PyTree, int, list[dict]]:
        """Begins a stage: its saved state, the steps done, and the history's rows.

        All is as at the start, (state, 0, []), if the file knows no such stage. Arrays
        in `state` may be `jax.ShapeDtypeStruct`; what is no array or number, such as a
        function, is not saved but taken from `state`.

        Raises:
            ValueError: the saved arrays have other shapes or types.
        """
        head = self._head
        if head["stage"] != stage:
            return state, 0, []
        state = self._unpack(self._state, state, f"state of {stage!r}")
        return state, head["step"], [*head["rows"]]

    def keep(self, stage: str, step: int, state: PyTree, rows: list[dict]) -> None:
        """Saves the state of a stage, if it is time to; to be called after every step.

        Raises:
            Stopped: as requested.
        """
        if self._signal or time.perf_counter() - self._written >= self._every:
            now = {"stage": stage, "step": step, "rows": rows}
            self._write(now, self._model, _pack(state), f"step {step} of {stage!r}")

    def finish(self, stage: str, told: dict, model: PyTree) -> None:
        """Records a finished stage, and saves the model that came out of it.

        Raises:
            Stopped: as requested.
        """
        now = {"finished": self._head["finished"] | {stage: told}, **_NO_STAGE}
        self._write(now, _pack(model), b"", f"the finished stage {stage!r}")

    def model(self, like: PyTree) -> PyTree:
        """The model after the last finished stage.

        Raises:
            ValueError: there is none, or its arrays have other shapes or types.
        """
        return self._unpack(self._model, like, "model")

    def close(self) -> None:
        """Removes the file: the training is over."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Journal":
        # Python lets only the main thread handle signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _request(self, number: int, frame: object) -> None:
        self._signal = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        text = f"\n{self._signal}: stopping after this step (Ctrl-C twice: at once)\n"
        # No print: the signal may come while a progress bar writes to that stream.
        with contextlib.suppress(OSError):
            os.write(2, text.encode())

    def _write(self, now: dict, model: bytes, state: bytes, saved: str) -> None:
        head = _plain(self._head | now | {"split": len(model)})
        write_bytes(self.path, _file(head, model + state))
        self._head, self._model, self._state = head, model, state
        self._written = time.perf_counter()
        if self._signal:
            raise Stopped(f"{self._signal}: {saved} is saved in {self.path}")

    def _read(self) -> None:
        found = self.path.read_bytes()
        line, _, content = found.partition(b"\n")
        try:
            head = json.loads(line)
            del head["sha256"]
            good = _FORMAT.items() <= head.items() and found == _file(head, content)
        except (KeyError, TypeError, ValueError):
            good = False
        if not good:
            raise ValueError(f"{self.path}: damaged, or not the journal of a training")
        old, new = _flat(head["config"]), _flat(self._head["config"])
        names = [n for n in sorted(old | new) if old.get(n) != new.get(n)]
        if names:
            differ = (f"{n} = {old.get(n)!r}, expected {new.get(n)!r}" for n in names)
            raise ValueError(f"{self.path}: another training: {'; '.join(differ)}")
        self._head, split = head, head["split"]
        self._model, self._state = content[:split], content[split:]

    def _unpack(self, content: bytes, like: PyTree, what: str) -> PyTree:
        file = io.BytesIO(content)
        try:
            # Float64 leaves stay what they are, whatever JAX's default.
            with jax.enable_x64(True):
                tree = eqx.tree_deserialise_leaves(file, like)
        except (EOFError, RuntimeError, ValueError) as error:
            raise ValueError(f"{self.path}: another {what}: {error}") from error
        if file.read(1):
            raise ValueError(f"{self.path}: another {what}: it has more arrays")
        return tree


def _pack(tree: PyTree) -> bytes:
    eqx.tree_serialise_leaves(file := io.BytesIO(), tree)
    return file.getvalue()


def _file(head: dict, content: bytes) -> bytes:
    # The sum counts the line as well: a flipped bit there can be another step.
    total = hashlib.sha256(json.dumps(head).encode() + content).hexdigest()
    return json.dumps(head | {"sha256": total}).encode() + b"\n" + content


def _plain(data: dict) -> dict:
    """As it comes back from a file: a copy, with lists for tuples."""
    return json.loads(json.dumps(data))


def _flat(tree: dict) -> dict[str, Any]:
    """The entries of nested dictionaries, under names with dots."""
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda x: not isinstance(x, dict))
    name = jax.tree_util.keystr
    return {name(path, simple=True, separator="."): leaf for path, leaf in leaves}
