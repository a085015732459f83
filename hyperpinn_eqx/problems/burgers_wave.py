"""Burgers' equation with the initial wave as the parameter."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .._arguments import ArrayLike, Finite, MayBeEmpty, checked
from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition
from .burgers import sine_wave


class BurgersWave(AbstractPDE):
    """Burgers' equation from waves of amplitude a and phase φ, on a ring.

    u_t + u u_x = ν u_xx for ν = 0.05, t in [0, 1], and x periodic on [-1, 1], with
    u(0, x) = -a sin(π (x - φ)). The equation is the same for all λ = (a, φ): what
    varies is where it starts. a runs over [0.5, 1.5]; φ is periodic too.

    >>> print(BurgersWave().exact(0.5, 0.25, np.array([1.0, 0.5])).round(3))
    0.746
    """

    viscosity: ClassVar[float] = 0.05
    domain: ClassVar[Box] = Box(t=(0.0, 1.0), x=(-1.0, 1.0, "periodic"))
    parameters: ClassVar[Box] = Box(a=(0.5, 1.5), phi=(-1.0, 1.0, "periodic"))

    def residual(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        return u.t + u.value * u.x - self.viscosity * u.xx

    @condition(t=0)
    def start(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        a, φ = lam
        return u.value + a * jnp.sin(jnp.pi * (tx[1] - φ))

    @checked
    def exact(
        self,
        t: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        x: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        lam: Finite[Float64[ArrayLike, " 2"]],
    ) -> Float64[np.ndarray, "*n"]:
        """The exact solution, a u₁(a t, x - φ; ν / a), where u₁ is that of a = 1.

        Args:
            t: time in [0, 1].
            x: position; broadcasts against t.
            lam: (a, φ) with a above 0, at most 50.

        Returns:
            u, with an absolute error of about 1e-12.

        Raises:
            ValueError: t outside [0, 1], or a outside (0, 50].
        """
        a, φ = lam
        # Beyond, ν / a is smaller than `sine_wave` can do.
        if not 0 < a <= 50:
            raise ValueError(f"lam: a = {a:g}, expected a number above 0, at most 50")
        if np.any((t < 0) | (t > 1)):
            raise ValueError(f"t = {t}, expected times in [0, 1]")
        t, x = np.broadcast_arrays(t, x)
        return np.asarray(a * sine_wave(a * t, x - φ, self.viscosity / a))
