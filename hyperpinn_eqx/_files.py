"""One kind of file for models and trainings: a line of JSON, then arrays. No pickle.

The line holds the format, its version, the versions of the libraries that wrote it, and
a checksum of everything, so that a damaged file is an error and never a wrong number.
"""

import functools
import hashlib
import importlib.metadata
import io
import json
import math
import os
import pathlib
import platform
import re
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

VERSION = 2
# As NumPy writes it before an array. Read by this and not by NumPy, which would
# evaluate it, and take memory for whatever it claims.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|]\w+)', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9, ]{0,200})\), \} *\n",
    re.DOTALL,
)
_NUMBERS = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
_TYPES = {np.dtype(name).str: np.dtype(name) for name in _NUMBERS}
# That format has no name for bfloat16: it is two bytes of no type.
_TYPES |= dict.fromkeys(("<V2", "|V2"), np.dtype(jnp.bfloat16))
# Also an array without entries may not have a side of any length.
_MOST = 2**31


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


def pack(tree: PyTree) -> bytes:
    """The arrays and numbers of a tree, one after the other, in NumPy's format.

    What is neither, such as a function, is left out.

    Raises:
        TypeError: an array of a type that `unpack` could not read; the message has its
            place in the tree.
    """
    file = io.BytesIO()
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not _is_kept(leaf):
            continue
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if dtype not in _TYPES.values():
            place = jax.tree_util.keystr(path) or "the array"
            raise TypeError(f"{place} is {dtype}, expected ordinary numbers")
        np.save(file, np.asarray(leaf), allow_pickle=False)
    return file.getvalue()


def unpack(content: bytes, like: PyTree, convert: Callable[..., Any]) -> PyTree:
    """The tree that `pack` was given.

    Args:
        content: what `pack` returned.
        like: a tree of the same structure, whose arrays may be
            `jax.ShapeDtypeStruct`; what is no array or number stays as it is.
        convert: from the type of one of JAX's arrays, and a read-only array of its
            shape that is a part of `content`, to the array that is returned.

    Raises:
        ValueError: other arrays; nothing was allocated for those that `content` only
            claims to hold.
    """
    leaves, structure = jax.tree.flatten(like)
    found = arrays(content)
    expected = sum(map(_is_kept, leaves))
    if len(found) != expected:
        raise ValueError(f"{len(found)} arrays, expected {expected}")
    values = iter(found)
    out = []
    for leaf in leaves:
        if _is_kept(leaf):
            value = next(values)
            if value.shape != np.shape(leaf):
                raise ValueError(
                    f"{value.dtype} array of shape {value.shape}, expected "
                    f"{np.shape(leaf)}"
                )
            leaf = _leaf(leaf, value, convert)
        out.append(leaf)
    return jax.tree.unflatten(structure, out)


def arrays(content: bytes) -> list[np.ndarray]:
    """The arrays that `pack` wrote, as views of these bytes.

    Raises:
        ValueError: the bytes are something else, or less than they claim to be.
    """
    found, at = [], 0
    while at < len(content):
        header = _HEADER.match(content, at)
        if header is None or (kind := header[1].decode()) not in _TYPES:
            raise ValueError(f"no array of numbers at byte {at}")
        at, dtype = header.end(), _TYPES[kind]
        shape = tuple(int(size) for size in header[3].split(b",") if size.strip())
        count = math.prod(shape)
        if max(shape, default=0) > _MOST or count * dtype.itemsize > len(content) - at:
            raise ValueError(f"an array of shape {shape} in {len(content) - at} bytes")
        value = np.frombuffer(content, dtype, count, at)
        found.append(value.reshape(shape, order="F" if header[2] == b"True" else "C"))
        at += count * dtype.itemsize
    return found


def _leaf(leaf: Any, value: np.ndarray, convert: Callable[..., Any]) -> Any:
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return convert(leaf.dtype, value)
    if value.dtype != (expected := np.asarray(leaf).dtype):
        raise ValueError(f"an array of {value.dtype}, expected {expected}")
    if isinstance(leaf, np.ndarray):
        return value.copy()
    return value[()] if isinstance(leaf, np.generic) else type(leaf)(value.item())


def _is_kept(leaf: object) -> bool:
    kinds = (jax.Array, jax.ShapeDtypeStruct, np.ndarray, np.generic)
    return isinstance(leaf, (*kinds, bool, int, float, complex))


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
    number, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path))
    try:
        with open(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(number)
        # A temporary file is private by default; the result should not be.
        os.chmod(name, 0o644)
        # After it is closed: Windows does not rename an open file.
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
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
