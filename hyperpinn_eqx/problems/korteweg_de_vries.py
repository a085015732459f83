"""The Korteweg-de Vries equation: third order, and a soliton."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition


class KortewegDeVries(AbstractPDE):
    """Waves in shallow water, u_t + 6 u u_x + u_xxx = 0.

    A soliton of speed c in [1, 4] starts at x = -3/2; t in [0, 1] and x in [-5, 5].
    Three derivatives in space take three conditions at the walls: u at both, and u_x at
    the right one. (Korteweg and de Vries 1895, Phil. Mag. 39.)

    >>> print(f"{KortewegDeVries().exact(1.0, 0.5, 2.0):.3f}")
    1.000
    """

    domain: ClassVar[Box] = Box(t=(0.0, 1.0), x=(-5.0, 5.0))
    parameters: ClassVar[Box] = Box(c=(1.0, 4.0))

    def residual(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.t + 6 * u.value * u.x + u.xxx

    @condition(t=0)
    def start(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.value - self.exact(tx[0], tx[1], lam)

    @condition(x=(-5, 5))
    def walls(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.value - self.exact(tx[0], tx[1], lam)

    @condition(x=5)
    def slope(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        z = self._phase(tx[0], tx[1], lam)
        return u.x + jnp.sqrt(lam) * self.exact(tx[0], tx[1], lam) * jnp.tanh(z)

    def exact(self, t: ArrayLike, x: ArrayLike, lam: ArrayLike) -> Float[Array, "*n"]:
        """The soliton (c/2) sech²(√c (x + 3/2 - ct) / 2); t and x broadcast."""
        c = jnp.asarray(lam)
        return c / 2 / jnp.cosh(self._phase(t, x, c)) ** 2

    def _phase(self, t: ArrayLike, x: ArrayLike, c: Array) -> Float[Array, "*n"]:
        return jnp.sqrt(c) * (x + 1.5 - c * t) / 2
