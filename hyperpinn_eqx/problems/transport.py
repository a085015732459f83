"""Advection, diffusion and reaction, with a coefficient for each."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition


class Transport(AbstractPDE):
    """A pulse that drifts, spreads and decays, u_t + c u_x = D u_xx - r u.

    Three parameters: speed c in [0, 1], diffusion D in [0.001, 0.1], rate of decay r in
    [0, 2]; t in [0, 1] and x in [0, 2]. The pulse starts at x = 1/2 as a Gaussian of
    standard deviation 0.15 and height 1.

    >>> print(f"{Transport().exact(1.0, 1.5, jnp.array([1.0, 0.001, 0.0])):.3f}")
    0.958
    """

    domain: ClassVar[Box] = Box(t=(0.0, 1.0), x=(0.0, 2.0))
    parameters: ClassVar[Box] = Box(c=(0.0, 1.0), D=(1e-3, 1e-1, "log"), r=(0.0, 2.0))

    def residual(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        c, D, r = lam
        return u.t + c * u.x - D * u.xx + r * u.value

    @condition(t=0)
    def start(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        return u.value - self.exact(tx[0], tx[1], lam)

    @condition(x=(0, 2))
    def walls(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        return u.value - self.exact(tx[0], tx[1], lam)

    def exact(
        self, t: ArrayLike, x: ArrayLike, lam: Float[ArrayLike, " 3"]
    ) -> Float[Array, "*n"]:
        """The pulse of variance 0.15² + 2 D t around 1/2 + c t; t and x broadcast."""
        c, D, r = jnp.asarray(lam)
        variance = 0.15**2 + 2 * D * t
        away = x - 0.5 - c * t
        return (0.15 / jnp.sqrt(variance)) * jnp.exp(
            -(away**2) / (2 * variance) - r * t
        )
