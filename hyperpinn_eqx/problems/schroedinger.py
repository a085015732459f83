"""The nonlinear Schrödinger equation: two fields, and a soliton."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition

Jets = tuple[Jet, Jet]


class Schroedinger(AbstractPDE):
    """The focusing nonlinear Schrödinger equation, `i w_t + w_xx / 2 + |w|² w = 0`.

    The fields u and v are the real and the imaginary part of w, for t in [0, 1] and x
    in [-5, 5]. λ is the amplitude a in [0.8, 1.5] and the speed c in [-1, 1] of a
    soliton. (Zakharov and Shabat 1972, Sov. Phys. JETP 34.)

    >>> u, v = Schroedinger().exact(0.0, 0.0, jnp.array([1.2, 0.5]))
    >>> print(f"{u:.1f} {v:.1f}")
    1.2 0.0
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "v")
    domain: ClassVar[Box] = Box(t=(0.0, 1.0), x=(-5.0, 5.0))
    parameters: ClassVar[Box] = Box(a=(0.8, 1.5), c=(-1.0, 1.0))

    def residual(
        self, w: Jets, tx: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> tuple[Float[Array, ""], ...]:
        u, v = w
        density = u.value**2 + v.value**2
        return (
            u.t + v.xx / 2 + density * v.value,
            v.t - u.xx / 2 - density * u.value,
        )

    @condition(t=0)
    def start(
        self, w: Jets, tx: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> tuple[Float[Array, ""], ...]:
        u, v = self.exact(tx[0], tx[1], lam)
        return w[0].value - u, w[1].value - v

    @condition(x=(-5, 5))
    def walls(
        self, w: Jets, tx: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> tuple[Float[Array, ""], ...]:
        u, v = self.exact(tx[0], tx[1], lam)
        return w[0].value - u, w[1].value - v

    def exact(
        self, t: ArrayLike, x: ArrayLike, lam: Float[ArrayLike, " 2"]
    ) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
        """The soliton a sech(a (x - ct)) exp(i (cx + (a² - c²) t / 2)); broadcasts."""
        a, c = jnp.asarray(lam)
        size = a / jnp.cosh(a * (x - c * t))
        phase = c * x + (a**2 - c**2) * t / 2
        return size * jnp.cos(phase), size * jnp.sin(phase)
