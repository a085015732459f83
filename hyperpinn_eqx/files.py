"""One kind of file for models and trainings: a line of JSON, then arrays. No pickle.

The line holds the format, its version, the versions of the libraries that wrote it, and
a checksum of everything, so that a damaged file is an error and never a wrong number.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import tempfile
from typing import Any

VERSION = 2


def write(path: str | os.PathLike, form: str, head: dict, content: bytes) -> None:
    """Writes a file of the given format, all of it or nothing.

    Args:
        path: where to; an existing file is replaced.
        form: the format's name.
        head: what stands in the first line, JSON-able.
        content: what follows.

    Raises:
        OSError: the file cannot be written; the old one is unharmed.
        TypeError: `head` holds what JSON cannot.
    """
    head = {"format": form, "version": VERSION, "libraries": libraries(), **head}
    write_bytes(path, _sealed(head, content))


def read(path: str | os.PathLike, form: str) -> tuple[dict[str, Any], bytes]:
    """The first line and the content of a file that `write` wrote.

    Raises:
        ValueError: another format or version, or a damaged file; the message tells.
        OSError: no such file, or it cannot be read.
    """
    found = pathlib.Path(path).read_bytes()
    line, _, content = found.partition(b"\n")
    try:
        head = json.loads(line)
        kind, version = head["format"], head["version"]
        sealed = found == _sealed({k: v for k, v in head.items() if k != _SUM}, content)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise ValueError(
            f"{path}: not a {form}, or its first line is damaged: expected a file that "
            "begins with a line of JSON"
        ) from None
    if kind != form:
        raise ValueError(f"{path}: format {kind!r}, expected {form!r}")
    if version != VERSION:
        raise ValueError(
            f"{path}: format version {version!r}, expected {VERSION}: it was written "
            f"by another version of hyperpinn_eqx ({head.get('libraries')})"
        )
    if not sealed:
        raise ValueError(
            f"{path}: damaged: {len(found)} bytes without the checksum that its first "
            "line tells, expected the whole file as it was written"
        )
    return head, content


@functools.cache
def libraries() -> dict[str, str]:
    """The versions of Python and of the libraries that decide a training's numbers."""
    names = ("hyperpinn_eqx", "jax", "jaxlib", "equinox", "optax", "diffrax", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


def write_json(path: str | os.PathLike, data: dict) -> None:
    """Writes a file for people, all of it or nothing."""
    write_bytes(path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file under another name, syncs it, and renames it."""
    path = pathlib.Path(path)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=_prefix(path), delete=False
    ) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            # A temporary file is private by default; the result should not be.
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def remove_leftovers(path: str | os.PathLike) -> None:
    """Removes what processes killed while writing this file have left beside it."""
    path = pathlib.Path(path)
    for file in path.parent.iterdir():
        if file.name.startswith(_prefix(path)):
            file.unlink(missing_ok=True)


def _prefix(path: pathlib.Path) -> str:
    return f".{path.name}."


_SUM = "sha256"


def _sealed(head: dict, content: bytes) -> bytes:
    # The sum counts the line as well: a flipped bit there can be another step.
    total = hashlib.sha256(json.dumps(head).encode() + content).hexdigest()
    return json.dumps({**head, _SUM: total}).encode() + b"\n" + content
