"""The potential in a ring, for any ratio of its radii."""

import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition
from .mapped import Mapped


def _ring(s: Float[Array, " 2"], ratio: Float[Array, ""]) -> Float[Array, " 2"]:
    radius = 1 + s[0] * (ratio - 1)
    return radius * jnp.stack([jnp.cos(s[1]), jnp.sin(s[1])])


class Ring(AbstractPDE):
    """∇²u = 0 between the unit circle and one of radius R in [1.5, 4].

    On the inner circle u = x, and nothing flows through the outer one: the potential
    in a conducting disc with an insulated rim, around a dipole.

    >>> print(f"{Ring().exact(1.0, 0.0, 2.0):.3f}")
    1.000
    """

    domain: ClassVar[Mapped] = Mapped(
        Box(r=(0.0, 1.0), a=(0.0, 2 * math.pi, "periodic")), ("x", "y"), _ring
    )
    parameters: ClassVar[Box] = Box(R=(1.5, 4.0))

    def residual(
        self, u: Jet, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.xx + u.yy

    @condition(r=0)
    def inner(
        self, u: Jet, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.value - xy[0]

    @condition(r=1)
    def outer(
        self, u: Jet, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.n

    def exact(self, x: ArrayLike, y: ArrayLike, lam: ArrayLike) -> Float[Array, "*n"]:
        """The potential; x and y broadcast."""
        x, y, square = jnp.asarray(x), jnp.asarray(y), jnp.asarray(lam) ** 2
        return x * (1 + square / (x**2 + y**2)) / (1 + square)
