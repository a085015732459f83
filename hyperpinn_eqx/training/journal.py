"""Stopping a training between two steps, and going on as if nothing had happened."""

import contextlib
import json
import os
import pathlib
import signal
import threading
import time
import warnings
from typing import Any

import filelock
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .. import _files as files
from .._arguments import NonNegative, checked
from .._blocks import in_any_process

_FORMAT = "hyperpinn_eqx training"
_NO_STAGE: dict[str, Any] = {"stage": None, "step": 0, "rows": []}


class Stopped(RuntimeError):
    """A training stopped as requested; the message says what is saved, and where."""


class Journal:
    """What a training has to remember to go on after a stop, in one file.

    A line of JSON (configuration, versions, step, history, checksum), the model after
    the last finished stage, and the state of the unfinished one: its weights, the
    optimiser's state, and its random key.

    As a context manager it is the file's only writer, and it takes SIGINT and SIGTERM
    as the request to stop after this step; a second SIGINT raises KeyboardInterrupt at
    once.

    Of several processes (`jax.distributed`) each makes a journal of the same file, in a
    folder that all can read. The first one writes it, and all stop if one has to.

    Args:
        path: the file.
        config: what decides the training (name, seed, recipe), JSON-able.
        resume: goes on from the file if there is one.
        every: the least number of seconds between two writes of `keep`.

    Raises:
        ValueError: there is a file but not `resume`; or the file to resume is damaged,
            no journal, or of another `config`.
        OSError: on entering, another process writes this file, or nothing can be
            written in its folder.

    Warns:
        UserWarning: the file was written by other versions of the libraries, so that
            the result may differ in its last digits.

    >>> import tempfile, jax.numpy as jnp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path, config = folder + "/x.journal", {"seed": 0}
    ...     with Journal(path, config, every=0.0) as journal:
    ...         journal.keep("fit", 3, jnp.ones(2), [])
    ...     print(Journal(path, config, resume=True).restore("fit", jnp.zeros(2)))
    (Array([1., 1.], dtype=float32), 3, [])
    """

    @checked
    def __init__(
        self,
        path: str | os.PathLike,
        config: dict,
        *,
        resume: bool = False,
        every: NonNegative = 10.0,
    ):
        self.path, self._every = pathlib.Path(path), every
        self._lock = filelock.FileLock(f"{self.path}.lock", timeout=0)
        self._signal: str | None = None
        self._handlers: dict[int, Any] = {}
        try:
            self._head = _plain(
                {"config": config, "recorded": {}, "finished": {}, **_NO_STAGE}
            )
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"config = {config!r}, expected JSON-able data: {error}"
            ) from error
        self._model = self._state = b""
        self._written = time.perf_counter()
        self._resume = resume
        self._read()

    def record(self, stage: str, settings: dict) -> None:
        """Notes what decides a stage, or that it is still what the file has noted.

        To be called before the stage begins or goes on, with JSON-able settings.

        Raises:
            ValueError: the file has begun the stage with other settings, or without
                any; the message names what differs.
        """
        noted, settings = self._head["recorded"].get(stage), _plain(settings)
        if noted is None and stage in (self._head["stage"], *self._head["finished"]):
            raise ValueError(
                f"{self.path}: holds a stage {stage!r} begun by something else, "
                f"expected settings {settings}"
            )
        if noted is not None and (differ := _differences(noted, settings)):
            raise ValueError(f"{self.path}: another training: {differ}")
        self._head["recorded"] = self._head["recorded"] | {stage: settings}

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
            OSError: a stop was requested, but nothing can be written.

        Warns:
            UserWarning: nothing can be written, as on a full disk. The file is as it
                was, the training goes on, and `keep` tries again in `every` seconds.
        """
        self._agree()
        if self._signal or time.perf_counter() - self._written >= self._every:
            now = {"stage": stage, "step": step, "rows": rows}
            self._write(
                now, self._model, files.pack(state), f"step {step} of {stage!r}"
            )

    def finish(self, stage: str, record: dict, model: PyTree) -> None:
        """Records a finished stage, and saves the model that came out of it.

        Raises:
            Stopped: as requested.
            OSError: as by `keep`.

        Warns:
            UserWarning: as by `keep`.
        """
        self._agree()
        now = {"finished": self._head["finished"] | {stage: record}, **_NO_STAGE}
        self._write(now, files.pack(model), b"", f"the finished stage {stage!r}")

    def model(self, like: PyTree) -> PyTree:
        """The model after the last finished stage.

        Raises:
            ValueError: there is none, or its arrays have other shapes or types.
        """
        return self._unpack(self._model, like, "model")

    def discard(self) -> None:
        """Removes the file: the training is over."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets others write the file, and leaves signals to whom they belong.

        The file stays. The end of a `with` block does this too; twice is no error.
        """
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler or signal.SIG_DFL)
        self._unlock()

    def __enter__(self) -> "Journal":
        try:
            # It also tells at once, not after hours, that a folder is read-only.
            if jax.process_index() == 0:
                self._lock.acquire()
        except filelock.Timeout:
            raise OSError(
                f"{self.path}: another process is writing it, expected one training "
                "for each file; choose another folder"
            ) from None
        try:
            # Since the first look another process may have gone on, and stopped.
            self._read()
            if self._lock.is_locked:
                files.remove_leftovers(self.path)
        except BaseException:
            self._unlock()
            raise
        # Python lets only the main thread handle signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _unlock(self) -> None:
        if not self._lock.is_locked:
            return
        # While it is held: later it could be another process's. Windows removes no open
        # file; there the lock itself does it when it is released.
        with contextlib.suppress(PermissionError):
            pathlib.Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def _request(self, number: int, frame: object) -> None:
        self._signal = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        text = f"\n{self._signal}: stopping after this step (Ctrl-C twice: at once)\n"
        # No print: the signal may come while a progress bar writes to that stream.
        with contextlib.suppress(OSError):
            os.write(2, text.encode())

    def _agree(self) -> None:
        # One that stops alone would leave the others waiting for its share.
        if in_any_process(self._signal is not None) and self._signal is None:
            self._signal = "a signal to another process"

    def _write(self, now: dict, model: bytes, state: bytes, saved: str) -> None:
        head = _plain(self._head | now | {"split": len(model)})
        # Also what cannot be written is remembered: the next write has it.
        self._head, self._model, self._state = head, model, state
        self._written = time.perf_counter()
        try:
            if jax.process_index() == 0:
                files.write(self.path, _FORMAT, head, model + state)
        except OSError as error:
            if self._signal:
                raise
            warnings.warn(
                f"{self.path}: {saved} could not be saved ({error}); the training goes "
                "on, and the next save tries again",
                stacklevel=4,
            )
        if self._signal:
            raise Stopped(f"{self._signal}: {saved} is saved in {self.path}")

    def _read(self) -> None:
        if not self.path.exists():
            return
        if not self._resume:
            raise ValueError(
                f"resume = {self._resume}, but {self.path} holds an unfinished "
                "training, expected True to go on with it; or remove that file to "
                "begin anew"
            )
        head, content = files.read(self.path, _FORMAT)
        differ = _differences(head["config"], self._head["config"])
        if differ:
            raise ValueError(f"{self.path}: another training: {differ}")
        if differ := _differences(head["libraries"], files.libraries()):
            warnings.warn(
                f"{self.path} was written by other versions ({differ}): the result may "
                "differ in its last digits",
                stacklevel=3,
            )
        own = ("format", "version", "libraries", "sha256")
        self._head |= {name: value for name, value in head.items() if name not in own}
        split = head["split"]
        self._model, self._state = content[:split], content[split:]

    def _unpack(self, content: bytes, like: PyTree, what: str) -> PyTree:
        try:
            return files.unpack(content, like, _array)
        except ValueError as error:
            raise ValueError(f"{self.path}: another {what}: {error}") from error


def _array(dtype: Any, value: np.ndarray) -> Array:
    if value.dtype != dtype:
        raise ValueError(f"an array of {value.dtype}, expected {dtype}")
    # Float64 stays what it is, whatever JAX's default.
    with jax.enable_x64(True):
        return jnp.array(value)


def _plain(data: dict) -> dict:
    """As it comes back from a file: a copy, with lists for tuples."""
    return json.loads(json.dumps(data))


def _differences(found: dict, expected: dict) -> str:
    old, new = _flat(found), _flat(expected)
    names = [n for n in sorted(old | new) if old.get(n) != new.get(n)]
    return "; ".join(f"{n} = {old.get(n)!r}, expected {new.get(n)!r}" for n in names)


def _flat(tree: dict) -> dict[str, Any]:
    """The entries of nested dictionaries, under names with dots."""
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda x: not isinstance(x, dict))
    name = jax.tree_util.keystr
    return {name(path, simple=True, separator="."): leaf for path, leaf in leaves}
