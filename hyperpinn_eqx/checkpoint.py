"""Saving and loading models: what they are as JSON, then their weights."""

import io
import json
import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import checks, files
from .baselines import ConcatPINN
from .box import Box
from .hypernet import HyperPINN
from .mainnet import MainNetSpec
from .model import AbstractModel
from .modulated import FiLM, LastLayer, LowRank

_MODELS = (HyperPINN, ConcatPINN, FiLM, LowRank, LastLayer)
_FORMAT = "hyperpinn_eqx model"


def save(
    path: str | os.PathLike, model: AbstractModel, card: dict | None = None
) -> None:
    """Writes a model to one file, all of it or nothing.

    The file holds a line of JSON (format, versions, checksum, architecture, card) and
    the weights in their own precision. It is written under another name, synced, and
    renamed: whenever a process is killed, the old file or the new one is there, whole.

    Args:
        path: where to; an existing file is replaced.
        model: a HyperPINN or a baseline.
        card: what to remember about the training, JSON-able.

    Raises:
        TypeError: `path` is no path, `model` no model of this package, or `card` no
            dictionary that JSON can hold.
        OSError: the file cannot be written; an old one is unharmed.
    """
    checks.instance("path", path, (str, os.PathLike))
    checks.instance("model", model, _MODELS)
    checks.instance("card", card, (dict, type(None)))
    try:
        json.dumps(card)
    except (TypeError, ValueError) as error:
        raise TypeError(f"card = {card!r}, expected JSON-able data: {error}") from error
    eqx.tree_serialise_leaves(file := io.BytesIO(), model)
    head = {"model": model.config(), "card": card or {}}
    files.write(path, _FORMAT, head, file.getvalue())


def load(
    path: str | os.PathLike, *, like: AbstractModel | None = None
) -> AbstractModel:
    """Reads a model that `save` wrote, in JAX's default precision.

    No code from the file is run: it holds JSON and plain arrays only.

    Args:
        path: the file.
        like: a model whose architecture the file must have.

    Raises:
        ValueError: not such a file, damaged, of another format version, or of another
            architecture than `like`; the message says what differs.
        FileNotFoundError: no such file.
        TypeError: `path` is no path, or `like` no model.
    """
    checks.instance("path", path, (str, os.PathLike))
    checks.instance("like", like, (AbstractModel, type(None)))
    head, content = files.read(path, _FORMAT)
    try:
        # As a closure: JAX sorts the keys of a dictionary that is an argument, and
        # with them the order of coordinates.
        skeleton = eqx.filter_eval_shape(lambda: _build(head["model"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: no model has this header: {error}") from error
    if like is not None:
        _compare(path, like.config(), head["model"])
    file = io.BytesIO(content)
    try:
        model = eqx.tree_deserialise_leaves(file, skeleton, _read_leaf)
    except (EOFError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path}: its weights are not those of its header, expected "
            f"{len(jax.tree.leaves(skeleton))} arrays: {error}"
        ) from error
    if file.read(1):
        raise ValueError(
            f"{path}: bytes follow the last weight, expected "
            f"{len(jax.tree.leaves(skeleton))} arrays"
        )
    return model


def read_card(path: str | os.PathLike) -> dict[str, Any]:
    """The card that was saved with a model.

    Raises:
        ValueError: not a file that `save` wrote, or damaged.
    """
    return files.read(path, _FORMAT)[0]["card"]


def _build(config: dict[str, Any]) -> AbstractModel:
    main = MainNetSpec.from_config(config["main"])
    parameters = Box(**config["parameters"])
    known = {model.__name__: model for model in _MODELS}
    checks.choice("class", config["class"], known)
    # What is left are the arguments that a class has of its own.
    rest = {k: v for k, v in config.items() if k not in ("class", "main", "parameters")}
    return known[config["class"]](main, parameters, **rest, key=jax.random.key(0))


def _compare(path: str | os.PathLike, wanted: dict, found: dict) -> None:
    for name in sorted(wanted.keys() | found.keys()):
        # As text: there tuples and lists are one, and the order of coordinates counts.
        if json.dumps(wanted.get(name)) != json.dumps(found.get(name)):
            raise ValueError(
                f"{path}: another architecture: {name} = {found.get(name)}, expected "
                f"{wanted.get(name)}"
            )


def _read_leaf(file: io.BytesIO, leaf: Any) -> Any:
    value = np.load(file, allow_pickle=False)
    if value.shape != leaf.shape or value.dtype not in (np.float32, np.float64):
        raise ValueError(f"{value.dtype} array of shape {value.shape}")
    return jnp.asarray(value, dtype=jnp.result_type(float))
