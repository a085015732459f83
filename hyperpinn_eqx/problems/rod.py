"""Heat in a rod with one insulated end and one that cools."""

from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float, Float64

from .._arguments import ArrayLike, Finite, MayBeEmpty, checked
from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition

_MODES = 200


class Rod(AbstractPDE):
    """The heat equation u_t = k u_xx with a Neumann and a Robin condition.

    No heat flows at x = 0, u_x = 0; at x = 1 it goes into the air, k u_x + h u = 0. The
    conductivity k lies in [0.1, 1], the heat transfer h in [0.5, 2]; t and x in [0, 1].
    The start, 1 - h x² / (2k + h), meets both conditions.

    >>> print(Rod().exact(1.0, 0.5, np.array([0.5, 1.0])).round(4))
    0.4886
    """

    domain: ClassVar[Box] = Box(t=(0.0, 1.0), x=(0.0, 1.0))
    parameters: ClassVar[Box] = Box(k=(0.1, 1.0, "log"), h=(0.5, 2.0))

    def residual(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        k, _ = lam
        return u.t - k * u.xx

    @condition(t=0)
    def start(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        k, h = lam
        return u.value - (1 - h * tx[1] ** 2 / (2 * k + h))

    @condition(x=0)
    def insulated(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        return u.x

    @condition(x=1)
    def cooled(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        k, h = lam
        return k * u.x + h * u.value

    @checked
    def exact(
        self,
        t: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        x: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        lam: Finite[Float64[ArrayLike, " 2"]],
    ) -> Float64[np.ndarray, "*n"]:
        """The series of eigenfunctions, Σ a cos(μx) exp(-k μ² t) with k μ tan μ = h.

        Args:
            t: time in [0, 1].
            x: position in [0, 1]; broadcasts against t.
            lam: (k, h).

        Returns:
            u, with an absolute error of at most 4e-8 at t = 0, and less soon after.
        """
        k, h = lam
        n = np.arange(_MODES)
        low, high = n * np.pi, (n + 0.5) * np.pi
        for _ in range(80):
            μ = (low + high) / 2
            below = (k * μ * np.sin(μ) - h * np.cos(μ)) * (-1.0) ** n < 0
            low, high = np.where(below, μ, low), np.where(below, high, μ)
        sine, cosine = np.sin(μ), np.cos(μ)
        ones = sine / μ
        squares = sine / μ + 2 * cosine / μ**2 - 2 * sine / μ**3
        a = (ones - h / (2 * k + h) * squares) / (0.5 + sine * cosine / (2 * μ))
        t, x = (np.asarray(values)[..., None] for values in (t, x))
        modes = a * np.cos(μ * x) * np.exp(-k * μ**2 * t)
        return np.asarray(np.sum(modes, axis=-1))
