"""Saving and loading models: one line of JSON, then the leaves. No pickle."""

import io
import json
import os
import pathlib
import tempfile
from typing import IO, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .baselines import ConcatPINN
from .box import Box
from .hypernet import HyperPINN
from .mainnet import MainNetSpec
from .model import AbstractModel

_FORMAT = "hyperpinn_eqx"
_VERSION = 1


def save(
    path: str | os.PathLike, model: AbstractModel, card: dict | None = None
) -> None:
    """Writes a model to one file, all of it or nothing.

    The file holds a JSON line (format, architecture, card) and the weights in their own
    precision. It is written under another name, synced, and renamed.

    Args:
        path: where to; an existing file is replaced.
        model: a HyperPINN or a baseline.
        card: what to remember about the training, JSON-able.
    """
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": model.config(),
        "card": card or {},
    }
    buffer = io.BytesIO()
    buffer.write(json.dumps(header).encode() + b"\n")
    eqx.tree_serialise_leaves(buffer, model)
    write_bytes(path, buffer.getvalue())


def write_json(path: str | os.PathLike, data: dict) -> None:
    """Writes a card beside its weights, all of it or nothing."""
    write_bytes(path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file, all of it or nothing, and syncs it."""
    path = pathlib.Path(path)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    # A temporary file is private by default; the result should not be.
    path.chmod(0o644)


def load(
    path: str | os.PathLike, *, like: AbstractModel | None = None
) -> AbstractModel:
    """Reads a model that `save` wrote, in JAX's default precision.

    Args:
        path: the file.
        like: a model whose architecture the file must have.

    Raises:
        ValueError: not such a file, cut off, of a newer format, or of another
            architecture than `like`; the message says what differs.
        FileNotFoundError: no such file.
    """
    with open(path, "rb") as file:
        header = _header(path, file)
        try:
            # As a closure: JAX sorts the keys of a dictionary that is an argument,
            # and with them the order of coordinates.
            skeleton = eqx.filter_eval_shape(lambda: _build(header["model"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: no model has this header: {error}") from error
        if like is not None:
            _compare(path, like.config(), header["model"])
        try:
            model = eqx.tree_deserialise_leaves(file, skeleton, _read_leaf)
            rest = file.read(1)
        except (ValueError, EOFError, RuntimeError, OSError) as error:
            raise ValueError(
                f"{path}: the weights end early or are damaged, expected "
                f"{len(jax.tree.leaves(skeleton))} arrays"
            ) from error
        if rest:
            raise ValueError(f"{path}: bytes follow the last weight; not a whole file")
    return model


def read_card(path: str | os.PathLike) -> dict[str, Any]:
    """The card that was saved with a model.

    Raises:
        ValueError: not a file that `save` wrote.
    """
    with open(path, "rb") as file:
        return _header(path, file)["card"]


def _header(path: str | os.PathLike, file: IO[bytes]) -> dict[str, Any]:
    line = file.readline(1 << 20)
    try:
        header = json.loads(line)
        known = header["format"] == _FORMAT and isinstance(header["version"], int)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known or not line.endswith(b"\n"):
        raise ValueError(f"{path}: not a hyperpinn_eqx checkpoint")
    if header["version"] > _VERSION:
        raise ValueError(
            f"{path}: format version {header['version']}, expected at most {_VERSION}; "
            "it was written by a newer hyperpinn_eqx"
        )
    if not {"model", "card"} <= header.keys():
        raise ValueError(f"{path}: not a hyperpinn_eqx checkpoint")
    return header


def _build(config: dict[str, Any]) -> AbstractModel:
    main = MainNetSpec.from_config(config["main"])
    parameters = Box(**config["parameters"])
    key = jax.random.key(0)
    if config["class"] == "HyperPINN":
        return HyperPINN(main, parameters, tuple(config["hidden"]), key=key)
    if config["class"] == "ConcatPINN":
        augmented = config.get("augmented", False)
        return ConcatPINN(main, parameters, augmented=augmented, key=key)
    raise ValueError(
        f"class {config['class']!r} in the file, expected HyperPINN or ConcatPINN"
    )


def _compare(path: str | os.PathLike, wanted: dict, found: dict) -> None:
    for name in sorted(wanted.keys() | found.keys()):
        # As text: there tuples and lists are one, and the order of coordinates counts.
        if json.dumps(wanted.get(name)) != json.dumps(found.get(name)):
            raise ValueError(
                f"{path}: another architecture: {name} = {found.get(name)}, expected "
                f"{wanted.get(name)}"
            )


def _read_leaf(file: IO[bytes], leaf: Any) -> Any:
    value = np.load(file, allow_pickle=False)
    if value.shape != leaf.shape or value.dtype not in (np.float32, np.float64):
        raise ValueError(f"{value.dtype} array of shape {value.shape}")
    return jnp.asarray(value, dtype=jnp.result_type(float))
