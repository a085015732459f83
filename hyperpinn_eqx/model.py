"""What every family of networks is: λ in, main network out."""

import abc
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .box import Box
from .mainnet import MainNet

Tree = TypeVar("Tree")


class AbstractModel(eqx.Module):
    """A family of networks: `model(lam)` is the main network for the parameters λ.

    Hypernetworks and baselines share this interface, so that losses, training,
    metrics and plots are written once. A subclass says how weights come about
    (`generate`), and which arguments rebuild its skeleton (`config`).
    """

    parameters: eqx.AbstractVar[Box]

    def __call__(self, lam: ArrayLike) -> MainNet:
        """The main network for λ in physical units, shape (p,), or () if p is 1.

        Raises:
            ValueError: λ has the wrong shape, is not finite, or is not positive where
                its whole range is.

        Warns:
            UserWarning: λ lies outside the trained range.
        """
        value = self.parameters.parameter(lam)
        return self.generate(self.parameters.scale(value.astype(dtype_of(self))))

    @abc.abstractmethod
    def generate(self, scaled: Float[Array, " p"]) -> MainNet:
        """The main network for λ already scaled to [-1, 1]; no checks."""

    @abc.abstractmethod
    def config(self) -> dict:
        """The arguments that rebuild this model's skeleton, as JSON-able data."""


def dtype_of(tree: object) -> jnp.dtype:
    """The floating-point type of a network's or model's weights."""
    return jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))[0].dtype


def count_parameters(tree: object) -> int:
    """The number of trainable numbers in a network or model.

    >>> from hyperpinn_eqx import Box, MainNetSpec
    >>> spec = MainNetSpec((2, *6 * (8,), 1), Box(t=(0, 1), x=(-1, 1)))
    >>> count_parameters(spec.init(key=jax.random.key(0)))
    393
    """
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return sum(leaf.size for leaf in leaves)


def cast(tree: Tree, dtype: jax.typing.DTypeLike) -> Tree:
    """The same network or model with weights of another floating-point type."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree
    )
