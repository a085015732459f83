"""Kovasznay flow: the Navier-Stokes equations behind a grid of wires."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition

Jets = tuple[Jet, Jet, Jet]


class Kovasznay(AbstractPDE):
    """Steady flow (u, v) with the pressure p, at Reynolds numbers Re in [20, 100].

    (u·∇)u = -∇p + ∇²u / Re and ∇·u = 0 on [-1/2, 1] x [-1/2, 3/2]. The velocity is
    prescribed on the whole edge, and the pressure at the origin: it is determined up to
    a constant otherwise. (Kovasznay 1948, Proc. Camb. Phil. Soc. 44.)

    >>> u, v, p = Kovasznay().exact(0.0, 0.25, 40.0)
    >>> print(f"{u:.3f} {v:.3f} {p:.3f}")
    1.000 -0.153 0.000
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "v", "p")
    domain: ClassVar[Box] = Box(x=(-0.5, 1.0), y=(-0.5, 1.5))
    parameters: ClassVar[Box] = Box(Re=(20.0, 100.0))

    def residual(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        u, v, p = w
        return (
            u.value * u.x + v.value * u.y + p.x - (u.xx + u.yy) / lam,
            u.value * v.x + v.value * v.y + p.y - (v.xx + v.yy) / lam,
            u.x + v.y,
        )

    @condition(x=(-0.5, 1.0), y=(-0.5, 1.5))
    def edge(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        u, v, _ = self.exact(xy[0], xy[1], lam)
        return w[0].value - u, w[1].value - v

    @condition(at=(0, 0))
    def origin(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return w[2].value

    def exact(
        self, x: ArrayLike, y: ArrayLike, lam: ArrayLike
    ) -> tuple[Float[Array, "*n"], ...]:
        """The velocity u and v, and the pressure p; x and y broadcast."""
        Re = jnp.asarray(lam)
        rate = Re / 2 - jnp.sqrt(Re**2 / 4 + 4 * jnp.pi**2)
        e, angle = jnp.exp(rate * x), 2 * jnp.pi * jnp.asarray(y)
        u = 1 - e * jnp.cos(angle)
        v = rate / (2 * jnp.pi) * e * jnp.sin(angle)
        return u, v, jnp.broadcast_to((1 - e**2) / 2, u.shape)
