"""What every family of networks is: λ in, main network out."""

import abc
import dataclasses
import re
from collections.abc import Iterable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._arguments import checked
from ..box import Box
from .main import MainNet, MainNetSpec, precision

Tree = TypeVar("Tree")


class AbstractModel(eqx.Module):
    """A family of networks: `model(lam)` is the main network for the parameters λ.

    Hypernetworks and baselines share this interface, so that losses, training,
    metrics and plots are written once. A subclass says how weights come about:
    `generate`.
    """

    parameters: eqx.AbstractVar[Box]

    def __call__(self, lam: ArrayLike) -> MainNet:
        """The main network for λ in physical units, shape (p,), or () if p is 1.

        It is made in the precision of the model's weights, whatever JAX's mode.

        Raises:
            ValueError: λ is not positive where its whole range is.

        Warns:
            UserWarning: λ lies outside the trained range.
        """
        dtype = dtype_of(self)
        with precision(dtype):
            value = self.parameters.parameter(lam).astype(dtype)
            net = _net(self, value) if self.plain else self.net_at(value)
            return net if net.plain else net.at(value)

    def net_at(self, value: Float[Array, " p"]) -> MainNet:
        """The main network for λ in the model's precision; no checks."""
        return self.generate(self.parameters.scale(value))

    @property
    def plain(self) -> bool:
        """Whether it is only arrays and shapes, so that one program stays right.

        A class from elsewhere, or code that is built in, may read what changes.
        """
        own = [getattr(self, field.name) for field in dataclasses.fields(self)]
        specs = [part.spec if isinstance(part, MainNet) else part for part in own]
        hard = [spec.hard for spec in specs if isinstance(spec, MainNetSpec)]
        ours = type(self).__module__.startswith(f"{__package__}.")
        return ours and not any(hard)

    @abc.abstractmethod
    def generate(self, scaled: Float[Array, " p"]) -> MainNet:
        """The main network for λ already scaled to [-1, 1]; no checks."""

    def config(self) -> dict:
        """What tells this model from others, as JSON-able data.

        The models of this package give the arguments that rebuild their skeletons.
        """
        return {"class": type(self).__name__, "fields": fields(self)}


# As in `main`: one call at a prompt, none in a larger program.
_net = jax.jit(AbstractModel.net_at, inline=True)


def fields(tree: object, name: str = "") -> dict[str, Any]:
    """The shapes of a tree's arrays and numbers, and all else that it holds as text."""
    if isinstance(tree, Array | np.ndarray | jax.ShapeDtypeStruct):
        return {name: list(tree.shape)}
    if isinstance(tree, bool | int | float | complex):
        return {name: []}
    parts: Iterable[tuple[str, Any]]
    text = {}
    if isinstance(tree, eqx.Module):
        every = dataclasses.fields(tree)
        static = [field.name for field in every if field.metadata.get("static")]
        text = {f".{field}": _text(getattr(tree, field)) for field in static}
        names = [field.name for field in every if field.name not in static]
        parts = [(f".{field}", getattr(tree, field)) for field in names]
    elif isinstance(tree, tuple | list):
        parts = ((f"[{i}]", value) for i, value in enumerate(tree))
    elif isinstance(tree, dict):
        parts = ((f"[{key!r}]", value) for key, value in tree.items())
    else:
        return {name: _text(tree)}
    found = {(name + place).removeprefix("."): value for place, value in text.items()}
    for place, part in parts:
        found |= fields(part, (name + place).removeprefix("."))
    return found


def _text(value: object) -> str:
    # The place of a function in memory is another one every time.
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


def dtype_of(tree: object) -> jnp.dtype:
    """The floating-point type of a network's or model's weights.

    Raises:
        ValueError: they are of several types.
    """
    types = {leaf.dtype for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)}
    if len(types) > 1:
        names = sorted(map(str, types))
        raise ValueError(f"weights are {names}, expected one type; see `cast`")
    return types.pop() if types else jnp.result_type(float)


def count_parameters(tree: object) -> int:
    """The number of trainable numbers in a network or model.

    >>> from hyperpinn_eqx import Box, MainNetSpec
    >>> spec = MainNetSpec((2, *6 * (8,), 1), Box(t=(0, 1), x=(-1, 1)))
    >>> count_parameters(spec.init(key=jax.random.key(0)))
    393
    """

    def weights(part: object) -> object:
        return (part.weights, part.biases) if isinstance(part, MainNet) else part

    own = jax.tree.map(weights, tree, is_leaf=lambda part: isinstance(part, MainNet))
    leaves = jax.tree.leaves(eqx.filter(own, eqx.is_inexact_array))
    return sum(leaf.size for leaf in leaves)


def cast(tree: Tree, dtype: jax.typing.DTypeLike) -> Tree:
    """The same network or model with weights of another floating-point type.

    What are no real weights, integers and complex numbers too, stay as they are.

    In float64 whatever JAX's mode: a network computes in the precision of its weights.

    Raises:
        ValueError: `dtype` is no such type.
    """
    known = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
    try:
        fits = isinstance(dtype, str | type | np.dtype) and np.dtype(dtype) in known
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(
            f"dtype = {dtype!r}, expected a floating-point type, such as jnp.float32"
        )
    with precision(np.dtype(dtype)):
        return jax.tree.map(
            lambda leaf: leaf.astype(dtype) if _real(leaf) else leaf, tree
        )


def _real(leaf: object) -> bool:
    return eqx.is_inexact_array(leaf) and jnp.isrealobj(leaf)


class SingleNet(AbstractModel):
    """One main network for whatever λ: the family that continuation moves along λ."""

    net: MainNet
    parameters: Box = eqx.field(static=True)

    @checked
    def __init__(self, net: MainNet, parameters: Box):
        self.net, self.parameters = net, parameters

    def generate(self, scaled: Float[Array, " p"]) -> MainNet:
        return self.net

    def config(self) -> dict:
        return {
            "class": "SingleNet",
            "main": self.net.spec.config(),
            "parameters": self.parameters.ranges(),
        }
