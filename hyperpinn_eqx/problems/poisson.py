"""Poisson's equation on a square."""

import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition


class Poisson(AbstractPDE):
    """Poisson's equation u_xx + u_yy = -(a² + b²) cos(ax) sin(by) on [0, π]².

    Both wave numbers a and b lie in [0, 5], whole or not; u is prescribed on all walls.
    There is no time.

    >>> print(f"{Poisson().exact(0.0, 1.0, jnp.array([2.0, 0.5])):.3f}")
    0.479
    """

    domain: ClassVar[Box] = Box(x=(0.0, math.pi), y=(0.0, math.pi))
    parameters: ClassVar[Box] = Box(a=(0.0, 5.0), b=(0.0, 5.0))

    def residual(
        self, u: Jet, xy: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        a, b = lam
        return u.xx + u.yy + (a**2 + b**2) * self.exact(xy[0], xy[1], lam)

    @condition(x=(0, math.pi), y=(0, math.pi))
    def walls(
        self, u: Jet, xy: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        return u.value - self.exact(xy[0], xy[1], lam)

    def exact(
        self, x: ArrayLike, y: ArrayLike, lam: Float[ArrayLike, " 2"]
    ) -> Float[Array, "*n"]:
        """The solution cos(ax) sin(by); x and y broadcast."""
        a, b = jnp.asarray(lam)
        return jnp.cos(a * x) * jnp.sin(b * y)
