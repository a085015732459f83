"""Potential flow around an ellipse of any two semi-axes."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition
from .mapped import Mapped

_FAR = 2.0


def _around(s: Float[Array, " 2"], lam: Float[Array, " 2"]) -> Float[Array, " 2"]:
    radii = lam + s[0] * (_FAR - lam)
    return radii * jnp.stack([jnp.cos(s[1]), jnp.sin(s[1])])


class Ellipse(AbstractPDE):
    """∇²u = 0 around an ellipse with the semi-axes a and b, both in [0.3, 1].

    u is the potential of a flow of speed 1 along x, which does not enter the ellipse;
    the domain ends at a circle of radius 2, where the potential is prescribed.

    >>> print(f"{Ellipse().exact(2.0, 0.0, jnp.array([1.0, 1.0])):.3f}")
    2.500
    """

    domain: ClassVar[Mapped] = Mapped(
        Box(r=(0.0, 1.0), a=(0.0, 2 * math.pi, "periodic")), ("x", "y"), _around
    )
    parameters: ClassVar[Box] = Box(a=(0.3, 1.0), b=(0.3, 1.0))

    def residual(
        self, u: Jet, xy: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        return u.xx + u.yy

    @condition(r=0)
    def body(
        self, u: Jet, xy: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        return u.n

    @condition(r=1)
    def far(
        self, u: Jet, xy: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        return u.value - self.exact(xy[0], xy[1], lam)

    def exact(self, x: ArrayLike, y: ArrayLike, lam: ArrayLike) -> Float[Array, "*n"]:
        """The potential outside of the ellipse; x and y broadcast.

        By the map of Joukowski, z = ζ + (a² - b²) / 4ζ, from a circle of radius
        (a + b) / 2.
        """
        a, b = jnp.asarray(lam)
        x, y = jnp.broadcast_arrays(jnp.asarray(x), jnp.asarray(y))
        # ζ = (z + w) / 2 with w² = z² - (a² - b²), of both the one that lies outside.
        w = jnp.sqrt(jax.lax.complex(x**2 - y**2 - (a**2 - b**2), 2 * x * y))
        side = jnp.where(jnp.real(w) * x + jnp.imag(w) * y < 0, -0.5, 0.5)
        along, across = x / 2 + side * jnp.real(w), y / 2 + side * jnp.imag(w)
        return along * (1 + (a + b) ** 2 / 4 / (along**2 + across**2))
