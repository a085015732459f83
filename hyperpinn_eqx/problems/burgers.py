"""Burgers' equation with a sine as initial condition, and its exact solution."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .._arguments import ArrayLike, MayBeEmpty, checked
from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition


class Burgers(AbstractPDE):
    """The viscous Burgers equation, paper eqs. 3 and 10.

    u_t + u u_x = ν u_xx for t in [0, 1] and x in [-1, 1], u(0, x) = -sin(πx),
    u(t, ±1) = 0, for viscosities ν in [0.001, 0.1]. At small ν a shock forms at
    x = 0, with a slope of about -1/(2ν).

    >>> print(Burgers().exact(0.5, -0.25, 0.01).round(6))
    0.838033
    """

    domain: ClassVar[Box] = Box(t=(0.0, 1.0), x=(-1.0, 1.0))
    parameters: ClassVar[Box] = Box(nu=(1e-3, 1e-1, "log"))

    def residual(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.t + u.value * u.x - lam * u.xx

    @condition(t=0)
    def start(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.value + jnp.sin(jnp.pi * tx[1])

    @condition(x=(-1, 1))
    def walls(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.value

    @checked
    def exact(
        self,
        t: MayBeEmpty[Float64[ArrayLike, "..."]],
        x: MayBeEmpty[Float64[ArrayLike, "..."]],
        nu: MayBeEmpty[Float64[ArrayLike, "..."]],
    ) -> Float64[np.ndarray, "*n"]:
        """The exact solution by the Cole-Hopf transformation.

        Burgers' equation is the heat equation in disguise (Hopf 1950, Cole 1951), so
        u is a quotient of two Gaussian means over η ~ N(0, 2νt),
        u = -E[sin(πy) w] / E[w] with y = x - η and log w = -cos(πy) / (2πν).
        The trapezoid rule evaluates both to round-off.

        Args:
            t: time in [0, 1].
            x: position in [-1, 1].
            nu: viscosity, at least 0.001. The three broadcast against each other, and
                NumPy computes in float64 whatever JAX's precision is.

        Returns:
            u, with an absolute error of at most 1e-12.

        Raises:
            ValueError: t outside [0, 1], x outside [-1, 1], or ν below 0.001.
        """
        for name, a, low, high in (
            ("t", t, 0.0, 1.0),
            ("x", x, -1.0, 1.0),
            ("nu", nu, 1e-3, np.inf),
        ):
            # The slack admits the float32 neighbours of the ends.
            inside = (a >= low - 1e-7) & (a <= high + 1e-7) & np.isfinite(a)
            if not inside.all():
                raise ValueError(
                    f"{name} = {a[~inside].flat[0]:g}, expected a value in "
                    f"[{low:g}, {high:g}]"
                )
        return sine_wave(np.clip(t, 0, 1), x, nu)


def sine_wave(t: ArrayLike, x: ArrayLike, nu: ArrayLike) -> Float64[np.ndarray, "*n"]:
    """The solution from u(0, x) = -sin(πx) on the whole line; t, x and ν broadcast.

    No checks: t from 0 on, ν from 0.001 on.
    """
    t, x, nu = np.broadcast_arrays(t, x, nu)
    # One set of nodes serves every x of the same (t, ν): on a grid, this turns
    # millions of integrals into a few thousand small matrix products.
    order = np.lexsort((nu.ravel(), t.ravel()))
    ts, nus = t.ravel()[order], nu.ravel()[order]
    change = (np.diff(ts) != 0) | (np.diff(nus) != 0)
    u, xs = np.empty(t.size), x.ravel()
    for group in np.split(order, np.flatnonzero(change) + 1) if t.size else []:
        i = group[0]
        u[group] = _cole_hopf(t.flat[i], xs[group], nu.flat[i])
    return u.reshape(t.shape)


def _cole_hopf(
    t: float, x: Float64[np.ndarray, " n"], nu: float
) -> Float64[np.ndarray, " n"]:
    if t == 0:
        return -np.sin(np.pi * x)
    if nu * t > 4:
        # It has decayed like exp(-π²νt), below round-off.
        return np.zeros_like(x)
    # Beyond `width` the integrand is below round-off, wherever its exponent peaks. Its
    # narrowest peak has the standard deviation `peak`; the trapezoid rule errs by
    # exp(-2π² (peak / step)²), which is round-off at half a standard deviation. Where
    # ν is large there is no peak, but the harmonics of w still have to be resolved.
    width = np.sqrt(4 * t / np.pi + 160 * nu * t)
    peak = min(np.sqrt(2 * nu * t / (1 + np.pi * t)), 0.2)
    η = np.linspace(-width, width, 1 + int(np.ceil(4 * width / peak)))
    cos_x, sin_x = np.cos(np.pi * x), np.sin(np.pi * x)
    cos_η, sin_η = np.cos(np.pi * η), np.sin(np.pi * η)
    # cos(π(x - η)) as a product of two thin matrices. The exponent stays within
    # ±160 for ν >= 0.001, so that w needs no rescaling against overflow.
    thin = np.stack([cos_η, sin_η]) / (-2 * np.pi * nu)
    w = np.exp(np.stack([cos_x, sin_x], axis=1) @ thin)
    gauss = np.exp(-(η**2) / (4 * nu * t))
    mean_cos, mean_sin, mean = (
        w @ np.stack([gauss * cos_η, gauss * sin_η, gauss], axis=1)
    ).T
    return -(sin_x * mean_cos - cos_x * mean_sin) / mean
