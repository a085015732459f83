"""The Klein-Gordon equation with three parameters, and its reference solution."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64
from numpy.polynomial import chebyshev

from .._arguments import ArrayLike, Finite, MayBeEmpty, checked
from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition

# Chebyshev points along each side of a cell, in which the solution is analytic.
_N = 24


class KleinGordon(AbstractPDE):
    """The Klein-Gordon equation u_tt + α u_xx + β u + γ u² + x cos t = x² cos² t.

    For t in [0, 5] and x in [-1, 1], from u = x at rest, with u(t, ±1) = ±cos t; α in
    [-2, -1], β and γ in [0, 1]. (The family of Chen and Koohy 2024, GPT-PINN, Finite
    Elem. Anal. Des. 228.)

    >>> u = KleinGordon().exact(5.0, 0.5, np.array([-1.0, 0.0, 1.0]))
    >>> bool(abs(u - 0.5 * np.cos(5.0)) < 1e-8)
    True
    """

    domain: ClassVar[Box] = Box(t=(0.0, 5.0), x=(-1.0, 1.0))
    parameters: ClassVar[Box] = Box(
        alpha=(-2.0, -1.0), beta=(0.0, 1.0), gamma=(0.0, 1.0)
    )

    def residual(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        α, β, γ = lam
        source = tx[1] * jnp.cos(tx[0])
        return u.tt + α * u.xx + β * u.value + γ * u.value**2 + source - source**2

    @condition(t=0)
    def start(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        return u.value - tx[1]

    @condition(t=0)
    def at_rest(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        return u.t

    @condition(x=(-1, 1))
    def walls(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, " 3"]
    ) -> Float[Array, ""]:
        return u.value - tx[1] * jnp.cos(tx[0])

    @checked
    def exact(
        self,
        t: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        x: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        lam: Finite[Float64[ArrayLike, " 3"]],
    ) -> Float64[np.ndarray, "*n"]:
        """A reference, by spectral elements along the characteristics.

        The conditions do not agree in the corners to all orders, so that second
        derivatives jump along the characteristics that start there; between them the
        solution is analytic. For λ = (-1, 0, 1) it is x cos t.

        Args:
            t: time in [0, 5].
            x: position in [-1, 1]; broadcasts against t.
            lam: (α, β, γ).

        Returns:
            u, with an absolute error of about 1e-12.
        """
        t, x = np.broadcast_arrays(t, x)
        if not t.size:
            return np.zeros(t.shape)
        speed = np.sqrt(-lam[0])
        places = np.stack([speed * t + x, speed * t - x])
        a, b = np.maximum(np.floor((places + 1) / 2).astype(int), 0)
        # A rounding may put a point of a wall into a cell beyond it.
        b = np.clip(b, a - 1, a + 1)
        cells = _cells(lam, int(max(a.max(), b.max())))
        u = np.array(x * np.cos(t))
        for at in {*zip(a.flat, b.flat, strict=True)}:
            here = (a == at[0]) & (b == at[1])
            one, other = places[:, here] - 2 * np.array(at)[:, None]
            u[here] += chebyshev.chebval2d(one, other, cells[at])
        return u


def _cells(
    lam: Float64[np.ndarray, " 3"], last: int
) -> dict[tuple[int, int], Float64[np.ndarray, "n n"]]:
    """The solution less x cos t, as Chebyshev coefficients in each cell.

    In ξ = ct + x and η = ct - x, with c² = -α, it solves 4c² w_ξη = g(w). The jumps are
    where ξ or η is odd: the cell (a, b) is a square of side 2 around ξ = 2a, η = 2b.
    Walls and the initial line are diagonals of such squares, and w goes on beyond them.
    """
    α, β, γ = lam
    speed = np.sqrt(-α)
    nodes = -np.cos(np.pi * np.arange(_N + 1) / _N)
    to_coefficients = np.linalg.inv(chebyshev.chebvander(nodes, _N))
    integrals = chebyshev.chebint(to_coefficients, lbnd=-1)
    integral = chebyshev.chebvander(nodes, _N + 1) @ integrals
    values: dict[tuple[int, int], np.ndarray] = {}

    def solve(a: int, b: int) -> None:
        ξ, η = 2 * a + nodes[:, None], 2 * b + nodes
        known = (ξ - η) / 2 * np.cos((ξ + η) / (2 * speed))
        w, zero = np.zeros_like(known), np.zeros((1, 1))
        # What comes in along ξ and along η, from cells that have been solved.
        by_ξ = values[a, b - 1][:, -1:] if a <= b and b else zero
        by_η = values[a - 1, b][-1:] if a >= b and a else zero
        # Picard iteration, which converges like 1 / n!.
        for _ in range(40):
            u = w + known
            rate = (known**2 - β * u - γ * u**2) / (4 * speed**2)
            one = rate @ integral.T
            both = integral @ one
            if a == b == 0:
                # At rest from zero where ξ = -η.
                line = integral @ np.diag(one[:, ::-1])
                w = both - np.diag(both[::-1]) - line[:, None] + line[::-1]
            elif a == b:
                w = both + by_ξ + by_η - by_ξ[0]
            elif a > b:
                w = both - np.diag(both)[:, None] + by_η - by_η.T
            else:
                w = both - np.diag(both) + by_ξ - by_ξ.T
        values[a, b] = w

    solve(0, 0)
    for k in range(last):
        for cell in ((k + 1, k), (k, k + 1), (k + 1, k + 1)):
            solve(*cell)
    return {cell: to_coefficients @ w @ to_coefficients.T for cell, w in values.items()}
