"""The trained weights that come with the package, and their model cards."""

import json
from importlib import resources
from typing import Any

from .. import _arguments as checks
from .._arguments import checked
from ..networks.checkpoint import load
from ..networks.model import AbstractModel

_FOLDER = resources.files(__name__)


def pretrained_names() -> list[str]:
    """The names that `load_pretrained` knows.

    >>> "burgers-hyperpinn" in pretrained_names()
    True
    """
    return sorted(
        entry.name.removesuffix(".eqx")
        for entry in _FOLDER.iterdir()
        if entry.name.endswith(".eqx")
    )


@checked
def load_pretrained(name: str) -> AbstractModel:
    """A trained model that comes with the package.

    Weights are stored in float64 and come in JAX's default precision.

    Raises:
        ValueError: an unknown name; the message lists the known ones.

    >>> import jax.numpy as jnp
    >>> model = load_pretrained("burgers-hyperpinn")
    >>> u = model(0.01)
    >>> print(u(jnp.array([0.5, 0.0])).round(2) + 0.0)
    0.0
    """
    with resources.as_file(_known(name, ".eqx")) as path:
        return load(path)


@checked
def load_card(name: str) -> dict[str, Any]:
    """The model card of a shipped model: how it was trained, and its errors.

    Raises:
        ValueError: an unknown name; the message lists the known ones.

    >>> load_card("burgers-hyperpinn")["parameters"]["model"]
    9385
    """
    return json.loads(_known(name, ".json").read_text("utf-8"))


def _known(name: str, ending: str) -> Any:
    checks.choice("name", name, pretrained_names())
    return _FOLDER / (name + ending)
