"""Slow flow through a channel with a bump of any height, and its reference solution."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Float64
from numpy.polynomial import chebyshev

from .._arguments import ArrayLike, Finite, MayBeEmpty, checked
from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition
from .mapped import Mapped

Jets = tuple[Jet, Jet, Jet]

_LENGTH, _MIDDLE, _WIDTH = 4.0, 2.0, 0.5
# Polynomials along and across the channel.
_ALONG, _ACROSS = 40, 16


def _floor(x: Any, height: Any, xp: Any = jnp) -> Any:
    return height * xp.exp(-(((x - _MIDDLE) / _WIDTH) ** 2))


def _channel(s: Float[Array, " 2"], height: Float[Array, ""]) -> tuple[Array, Array]:
    floor = _floor(s[0], height)
    return s[0], floor + s[1] * (1 - floor)


class Bump(AbstractPDE):
    """Stokes flow (u, v) with the pressure p over a bump of height h in [0, 0.4].

    ∇²(u, v) = ∇p and ∇·(u, v) = 0 in a channel of length 4 with walls at y = 1 and
    y = h exp(-((x - 2) / 0.5)²), at which the fluid rests. It enters and leaves with
    the profile 4 y (1 - y); p is zero in the middle of the outlet.

    >>> u, v, p = Bump().exact(2.0, 0.5, 0.0)
    >>> print(f"{u:.6f} {v + 0:.6f} {p:.6f}")
    1.000000 0.000000 16.000000
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "v", "p")
    domain: ClassVar[Mapped] = Mapped(
        Box(a=(0.0, _LENGTH), b=(0.0, 1.0)), ("x", "y"), _channel
    )
    parameters: ClassVar[Box] = Box(h=(0.0, 0.4))

    def residual(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        u, v, p = w
        return u.xx + u.yy - p.x, v.xx + v.yy - p.y, u.x + v.y

    @condition(b=(0, 1))
    def walls(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        return w[0].value, w[1].value

    @condition(a=(0, _LENGTH))
    def ends(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        return w[0].value - 4 * xy[1] * (1 - xy[1]), w[1].value

    @condition(at=(_LENGTH, 0.5))
    def outlet(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return w[2].value

    @checked
    def exact(
        self,
        x: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        y: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        lam: Finite[Float64[ArrayLike, ""]],
    ) -> tuple[Float64[np.ndarray, "*n"], ...]:
        """A reference, by Chebyshev series for the stream function.

        Args:
            x: position along the channel, in [0, 4].
            y: position across, between the walls; broadcasts against x.
            lam: the height h.

        Returns:
            u, v and p, with an error of up to 1e-3, for the highest bump.
        """
        x, y = np.broadcast_arrays(x, y)
        ψ, p = _solved(float(lam))
        map_ = _Map(x, y, float(lam))
        ψa, ψb = (map_.value(_derivative(ψ, axis)) for axis in (0, 1))
        u, v = map_.b_y * ψb, -ψa - map_.b_x * ψb
        return np.asarray(u), np.asarray(v), map_.value(p)


class _Map:
    """Points of the channel in the reference box, and how b depends on them."""

    def __init__(self, x: np.ndarray, y: np.ndarray, height: float):
        floor = np.asarray(_floor(x, height, np))
        d = -2 * (x - _MIDDLE) / _WIDTH**2
        slope, bend = d * floor, (d**2 - 2 / _WIDTH**2) * floor
        self.a, self.b = x, (y - floor) / (1 - floor)
        self.b_y = 1 / (1 - floor)
        self.b_x = slope * (y - 1) * self.b_y**2
        self.b_xx = (y - 1) * (bend * self.b_y**2 + 2 * slope**2 * self.b_y**3)

    def value(self, c: Float64[np.ndarray, "m n"]) -> np.ndarray:
        """A series in a and b at these points."""
        at = 2 * self.a / _LENGTH - 1, 2 * self.b - 1
        return np.asarray(chebyshev.chebval2d(*at, c))


def _solved(height: float) -> list[Float64[np.ndarray, "m n"]]:
    """Chebyshev coefficients of the stream function ψ and of p over the box.

    Of all flows without divergence that have these values at the edge, Stokes flow
    dissipates least: the square of ∇²ψ has the least integral.
    """
    s, by_s = np.polynomial.legendre.leggauss(_ALONG + 12)
    q, by_q = np.polynomial.legendre.leggauss(_ACROSS + 8)
    a, b = np.meshgrid(_LENGTH * (s + 1) / 2, (q + 1) / 2, indexing="ij")
    floor = np.asarray(_floor(a, height, np))
    at = _Map(a.ravel(), (floor + b * (1 - floor)).ravel(), height)
    weight = np.sqrt((np.outer(by_s, by_q) * (1 - floor)).ravel())
    vanish = chebyshev.chebpow([0.5, 0, -0.5], 2)

    def laplacian(along: list[np.ndarray], across: list[np.ndarray]) -> np.ndarray:
        terms = [
            (along[2], across[0], np.ones(a.size)),
            (along[1], across[1], 2 * at.b_x),
            (along[0], across[2], at.b_x**2 + at.b_y**2),
            (along[0], across[1], at.b_xx),
        ]
        return sum(factor[:, None] * np.kron(x, y) for x, y, factor in terms)

    # Zero at the edge with their slopes, but for the profile itself.
    basis = [_times(vanish, n) for n in (_ALONG, _ACROSS)]
    profile = chebyshev.poly2cheb([1 / 3, 1 / 2, 0, -1 / 6])[None]
    rates = (2 / _LENGTH, 2.0)
    tables = [
        [_table(rows, place, n) * rate**n for n in range(3)]
        for rows, place, rate in zip(basis, (s, q), rates, strict=True)
    ]
    one = [np.ones((s.size, 1)), *[np.zeros((s.size, 1))] * 2]
    flat = [_table(profile, q, n) * 2.0**n for n in range(3)]
    source = laplacian(one, flat)[:, 0]
    matrix = laplacian(*tables)
    c = _least_squares(weight[:, None] * matrix, -weight * source)
    vorticity = -source - matrix @ c
    c = basis[0].T @ c.reshape(_ALONG, _ACROSS) @ basis[1]
    c[0, : profile.size] += profile[0]
    # The pressure is the harmonic conjugate of the vorticity: ∇p = (-ω_y, ω_x).
    sizes = (_ALONG + 4, _ACROSS + 4)
    tables = [
        [_table(np.eye(n), place, m) * rate**m for m in range(2)]
        for n, place, rate in zip(sizes, (s, q), rates, strict=True)
    ]
    by_b = np.kron(tables[0][0], tables[1][1])
    by_x = np.kron(tables[0][1], tables[1][0]) + at.b_x[:, None] * by_b
    by_y = at.b_y[:, None] * by_b
    to = [np.linalg.pinv(table[0]) for table in tables]
    ω = (to[0] @ vorticity.reshape(a.shape) @ to[1].T).ravel()
    both = np.concatenate([weight, weight])
    right = both * np.concatenate([-by_y @ ω, by_x @ ω])
    # Without the constant, which is free. Normal equations are fast, and good enough.
    gradient = both[:, None] * np.vstack([by_x, by_y])[:, 1:]
    found = np.linalg.solve(gradient.T @ gradient, gradient.T @ right)
    p = np.concatenate([[0.0], found]).reshape(sizes)
    p[0, 0] = -chebyshev.chebval2d(1.0, 0.0, p)
    return [c, p]


def _table(rows: Float64[np.ndarray, "n m"], at: np.ndarray, order: int) -> np.ndarray:
    """Derivatives of Chebyshev series, one for each column, at places."""
    return chebyshev.chebval(at, chebyshev.chebder(rows.T, order)).T


def _times(c: np.ndarray, n: int) -> Float64[np.ndarray, "n m"]:
    """The products of a series with the first n polynomials, one in each row."""
    rows = np.zeros((n, n + len(c) - 1))
    for row, unit in zip(rows, np.eye(n), strict=True):
        product = chebyshev.chebmul(c, unit)
        row[: len(product)] = product
    return rows


def _least_squares(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    # By QR, several times as fast as NumPy's way.
    return scipy.linalg.lstsq(matrix, right, lapack_driver="gelsy")[0]


def _derivative(c: Float64[np.ndarray, "m n"], axis: int) -> np.ndarray:
    """The series of ∂/∂a or ∂/∂b."""
    return chebyshev.chebder(c, axis=axis) * (2 / _LENGTH, 2.0)[axis]
