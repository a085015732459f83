"""The wave equation in two space dimensions."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition


class Wave(AbstractPDE):
    """The wave equation u_tt = c² (u_xx + u_yy), released at rest.

    The speed c and the wave number k both lie in [0.01, 1]; t in [0, 1/2], x and y in
    [0, 1]. u starts from 10 sin(kx) sin(ky) with u_t = 0.

    >>> print(f"{Wave().exact(0.5, 1.0, 1.0, jnp.array([1.0, 1.0])):.3f}")
    5.383
    """

    domain: ClassVar[Box] = Box(t=(0.0, 0.5), x=(0.0, 1.0), y=(0.0, 1.0))
    parameters: ClassVar[Box] = Box(c=(0.01, 1.0), k=(0.01, 1.0))

    def residual(
        self, u: Jet, txy: Float[Array, " 3"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        c, _ = lam
        return u.tt - c**2 * (u.xx + u.yy)

    @condition(t=0)
    def start(
        self, u: Jet, txy: Float[Array, " 3"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        t, x, y = txy
        return u.value - self.exact(t, x, y, lam)

    @condition(t=0)
    def at_rest(
        self, u: Jet, txy: Float[Array, " 3"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        return u.t

    @condition(x=(0, 1), y=(0, 1))
    def walls(
        self, u: Jet, txy: Float[Array, " 3"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        t, x, y = txy
        return u.value - self.exact(t, x, y, lam)

    def exact(
        self, t: ArrayLike, x: ArrayLike, y: ArrayLike, lam: Float[ArrayLike, " 2"]
    ) -> Float[Array, "*n"]:
        """The standing wave 10 sin(kx) sin(ky) cos(√2 c k t); broadcasts."""
        c, k = jnp.asarray(lam)
        swing = jnp.cos(jnp.sqrt(2.0).astype(k.dtype) * c * k * t)
        return 10 * jnp.sin(k * x) * jnp.sin(k * y) * swing
