"""Saving and loading models: what they are as JSON, then their weights."""

import json
import os
from typing import Any, TypeVar, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import _arguments as checks
from .. import _files as files
from .._arguments import checked
from ..box import Box
from .conditioned import ConcatPINN, FiLM, LastLayer, LowRank
from .hyper import HyperPINN
from .main import MainNet, MainNetSpec
from .model import AbstractModel, SingleNet, dtype_of, fields

Model = TypeVar("Model", bound=AbstractModel | MainNet)
_FAMILIES = {m.__name__: m for m in (HyperPINN, ConcatPINN, FiLM, LowRank, LastLayer)}
_FORMAT = "hyperpinn_eqx model"


@checked
def save(
    path: str | os.PathLike,
    model: AbstractModel | MainNet,
    card: dict | None = None,
) -> None:
    """Writes a model to one file, all of it or nothing.

    The file holds a line of JSON (format, versions, checksum, architecture, card) and
    the weights in their own precision. It is written under another name, synced, and
    renamed: whenever a process is killed, the old file or the new one is there, whole.
    What could not be read again is not written.

    Args:
        path: where to; an existing file is replaced.
        model: a model of this package or of a class of your own, or a main network.
        card: what to remember about the training, JSON-able.

    Raises:
        TypeError: `model` has arrays of something else than numbers, or `card` cannot
            be written as JSON.
        ValueError: weights of several precisions, or of other shapes than the class of
            the model gives them.
        OSError: the file cannot be written; an old one is unharmed.
    """
    config = _plain("config of model", _config(model))
    head = {"model": config, "card": _plain("card", card) or {}}
    try:
        dtype_of(model)
        content = files.pack(model)
        _model(config, content, model)
    except TypeError as error:
        raise TypeError(f"model: {error}") from error
    except ValueError as error:
        raise ValueError(f"model: {error}") from error
    files.write(path, _FORMAT, head, content)


@overload
def load(path: str | os.PathLike) -> Any: ...
@overload
def load(path: str | os.PathLike, *, like: Model) -> Model: ...


@checked
def load(
    path: str | os.PathLike, *, like: AbstractModel | MainNet | None = None
) -> Any:
    """Reads a model that `save` wrote.

    Weights come in JAX's default precision: float64 ones as float32, unless
    `jax_enable_x64` is on. Those in half precision stay as they are.

    No code from the file is run: it holds JSON and plain arrays only. So it cannot
    tell how a class of your own is made; such a model is put together after `like`.

    Args:
        path: the file.
        like: a model whose architecture the file must have.

    Raises:
        ValueError: not such a file, damaged, of another format version, of another
            architecture than `like`, or of a class of your own or with conditions
            built in, without `like`; the message says what differs.
        FileNotFoundError: no such file.
    """
    head, content = files.read(path, _FORMAT)
    try:
        return _model(head["model"], content, like)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be loaded: {error}") from error


@checked
def read_card(path: str | os.PathLike) -> dict[str, Any]:
    """The card that was saved with a model.

    Raises:
        ValueError: not a file that `save` wrote, or damaged.
    """
    return files.read(path, _FORMAT)[0]["card"]


def _config(model: AbstractModel | MainNet) -> dict:
    if isinstance(model, MainNet):
        return {"class": "MainNet", "main": model.spec.config()}
    config = model.config()
    checks.instance("config of model", config, dict)
    name = type(model).__name__
    if type(model) in (*_FAMILIES.values(), SingleNet):
        return config
    # Whatever a class of the user's own says of itself.
    return {**config, "class": name, "fields": fields(model)}


def _plain(name: str, data: dict | None) -> Any:
    """As it comes back from a file."""
    try:
        return json.loads(json.dumps(data))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"{name} = {data!r}, expected JSON-able data: {error}"
        ) from error


def _model(config: dict, content: bytes, like: AbstractModel | MainNet | None) -> Any:
    """The model that a file holds, if it is one like that."""
    skeleton: Any = like
    if "fields" not in config and "hard" not in config["main"]:
        skeleton = _skeleton(config, content)
    elif like is None:
        code = config.get("main", {}).get("hard", config["class"])
        raise ValueError(
            f"like = None, expected a model of the same shape: this one needs {code}, "
            "which is not of this package"
        )
    if like is not None:
        _compare(_plain("like", _config(like)), config)
    return files.unpack(content, skeleton, _array)


def _skeleton(config: dict[str, Any], content: bytes) -> Any:
    """The shapes of a model that the package can make."""
    main, hidden = config["main"]["sizes"], config.get("hidden", ())
    # Each is a number of biases, or the side of a matrix.
    total = sum((*main, *hidden, config.get("rank", 0)))
    if total > (size := sum(array.size for array in files.arrays(content))):
        raise ValueError(f"its layers have {total} units, but {size} weights")
    # As a closure: JAX sorts the keys of a dictionary that is an argument, and with
    # them the order of coordinates.
    return eqx.filter_eval_shape(lambda: _build(config))


def _build(config: dict[str, Any]) -> AbstractModel | MainNet:
    kind = config["class"]
    checks.choice("class", kind, (*_FAMILIES, "SingleNet", "MainNet"))
    main, key = MainNetSpec.from_config(config["main"]), jax.random.key(0)
    # What is left are the arguments that a class has of its own.
    rest = {k: v for k, v in config.items() if k not in ("class", "main", "parameters")}
    if kind == "MainNet":
        return main.init(**rest, key=key)
    parameters = Box(**config["parameters"])
    if kind == "SingleNet":
        return SingleNet(main.init(key=key), parameters, **rest)
    return _FAMILIES[kind](main, parameters, **rest, key=key)


def _compare(wanted: dict, found: dict) -> None:
    wanted, found = ({**c, **c.get("fields", {})} for c in (wanted, found))
    for name in sorted((wanted.keys() | found.keys()) - {"fields"}):
        # As text: there tuples and lists are one, and the order of coordinates counts.
        if json.dumps(wanted.get(name)) != json.dumps(found.get(name)):
            raise ValueError(
                f"another architecture: {name} = {found.get(name)}, expected "
                f"{wanted.get(name)}"
            )


def _array(dtype: Any, value: np.ndarray) -> Array:
    kinds = (np.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    if any(jnp.issubdtype(dtype, k) != jnp.issubdtype(value.dtype, k) for k in kinds):
        raise ValueError(f"an array of {value.dtype}, expected {dtype}")
    if value.dtype in (np.float32, np.float64):
        return jnp.array(value, dtype=jnp.result_type(float))
    array: Array = jnp.array(value, dtype=jax.dtypes.canonicalize_dtype(value.dtype))
    if jnp.issubdtype(dtype, jnp.integer) and not np.array_equal(array, value):
        raise ValueError(f"an array of {value.dtype} beyond the range of {array.dtype}")
    return array
