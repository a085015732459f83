"""Advection and diffusion in two space dimensions."""

import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition


class Plume(AbstractPDE):
    """A cloud in the wind, u_t + v·∇u = D ∇²u on a square.

    Parameters are the diffusion D in [0.003, 0.1] and the direction θ of the wind
    v = (cos θ, sin θ) / 2, which is periodic; t in [0, 1], x and y in [-1, 1]. The
    cloud starts in the middle as a Gaussian of standard deviation 1/4 and height 1.

    >>> print(f"{Plume().exact(1.0, 0.5, 0.0, jnp.array([0.003, 0.0])):.3f}")
    0.912
    """

    domain: ClassVar[Box] = Box(t=(0.0, 1.0), x=(-1.0, 1.0), y=(-1.0, 1.0))
    parameters: ClassVar[Box] = Box(
        D=(3e-3, 1e-1, "log"), theta=(-math.pi, math.pi, "periodic")
    )

    def residual(
        self, u: Jet, tx: Float[Array, " 3"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        D, θ = lam
        drift = (jnp.cos(θ) * u.x + jnp.sin(θ) * u.y) / 2
        return u.t + drift - D * (u.xx + u.yy)

    @condition(t=0)
    def start(
        self, u: Jet, tx: Float[Array, " 3"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        t, x, y = tx
        return u.value - self.exact(t, x, y, lam)

    @condition(x=(-1, 1), y=(-1, 1))
    def walls(
        self, u: Jet, tx: Float[Array, " 3"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        t, x, y = tx
        return u.value - self.exact(t, x, y, lam)

    def exact(
        self, t: ArrayLike, x: ArrayLike, y: ArrayLike, lam: Float[ArrayLike, " 2"]
    ) -> Float[Array, "*n"]:
        """The cloud of variance 1/16 + 2 D t around v t; t, x and y broadcast."""
        D, θ = jnp.asarray(lam)
        variance = 1 / 16 + 2 * D * t
        away = (x - jnp.cos(θ) * t / 2) ** 2 + (y - jnp.sin(θ) * t / 2) ** 2
        return jnp.exp(-away / (2 * variance)) / (16 * variance)
