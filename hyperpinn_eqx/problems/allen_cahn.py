"""The Allen-Cahn equation: a front whose width and speed both depend on λ."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition


class AllenCahn(AbstractPDE):
    """Reaction and diffusion, u_t = D u_xx + u - u³, with a travelling front.

    For t in [0, 4], x in [0, 10] and D in [0.01, 1]. A front that starts at x = 1
    moves into u = 0 with the speed 3 √(D/2). (Allen and Cahn 1979, Acta Metall. 27.)

    >>> print(AllenCahn().exact(4.0, 5.0, 0.1).round(3))
    0.05
    """

    domain: ClassVar[Box] = Box(t=(0.0, 4.0), x=(0.0, 10.0))
    parameters: ClassVar[Box] = Box(D=(0.01, 1.0, "log"))

    def residual(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.t - lam * u.xx - u.value + u.value**3

    @condition(t=0)
    def start(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.value - self.exact(tx[0], tx[1], lam)

    @condition(x=(0, 10))
    def walls(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.value - self.exact(tx[0], tx[1], lam)

    def exact(self, t: ArrayLike, x: ArrayLike, lam: ArrayLike) -> Float[Array, "*n"]:
        """The front, u = 1 / (1 + exp((x - 1 - 3 √(D/2) t) / √(2D))); broadcasts."""
        D = jnp.asarray(lam)
        return 1 / (1 + jnp.exp((x - 1 - 3 * jnp.sqrt(D / 2) * t) / jnp.sqrt(2 * D)))
