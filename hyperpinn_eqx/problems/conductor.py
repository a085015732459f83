"""A conductor that its own current heats, for any of a family of shapes."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64
from numpy.polynomial import chebyshev

from .._arguments import ArrayLike, Finite, MayBeEmpty, checked
from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition
from .chebyshev import collocation
from .mapped import Mapped

Jets = tuple[Jet, Jet]

# Chebyshev points of the reference, along and across.
_ALONG, _ACROSS = 36, 14


def _outline(s: Float[Array, " 2"], lam: Float[Array, " 2"]) -> tuple[Array, Array]:
    half = (1 + lam[0] * jnp.cos(2 * jnp.pi * (s[0] - 0.5))) / 4
    return s[0], s[1] * half


class Conductor(AbstractPDE):
    """Voltage v and temperature T in a conductor with shape s and cooling h.

    ∇²v = 0 and ∇²T + ∇v·∇v = 0, for x in [0, 1], up to the side
    y = (1 + s cos 2π(x - 1/2)) / 4; below y = 0 it goes on as in a mirror. Its area is
    the same for every s in [-0.3, 0.6], and so is the current through it. Both ends are
    kept at T = 0; the side loses h T, with h in [0, 4].

    >>> v, T = Conductor().exact(0.5, 0.0, np.array([0.0, 0.0]))
    >>> print(f"{abs(v):.6f} {T:.6f}")
    0.000000 0.125000
    """

    fields: ClassVar[tuple[str, ...]] = ("v", "T")
    domain: ClassVar[Mapped] = Mapped(
        Box(a=(0.0, 1.0), b=(0.0, 1.0)), ("x", "y"), _outline
    )
    parameters: ClassVar[Box] = Box(s=(-0.3, 0.6), h=(0.0, 4.0))

    def residual(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> tuple[Float[Array, ""], ...]:
        v, T = w
        return v.xx + v.yy, T.xx + T.yy + v.x**2 + v.y**2

    @condition(a=(0, 1))
    def ends(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> tuple[Float[Array, ""], ...]:
        v, T = w
        return v.x - 1 / (1 - lam[0]), T.value

    @condition(b=1)
    def side(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> tuple[Float[Array, ""], ...]:
        v, T = w
        return v.n, T.n + lam[1] * T.value

    @condition(b=0)
    def mirror(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> tuple[Float[Array, ""], ...]:
        v, T = w
        return v.n, T.n

    @condition(at=(0.5, 0))
    def ground(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        return w[0].value

    @checked
    def exact(
        self,
        x: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        y: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        lam: Finite[Float64[ArrayLike, " 2"]],
    ) -> tuple[Float64[np.ndarray, "*n"], ...]:
        """A reference, by Chebyshev collocation on the box that is mapped.

        Args:
            x: position along the conductor.
            y: height over its axis; broadcasts against x.
            lam: (s, h).

        Returns:
            v, with an error of at most 1e-5, and T, of 1e-7.
        """
        x, y = np.broadcast_arrays(x, y)
        half = (1 + lam[0] * np.cos(2 * np.pi * (x - 0.5))) / 4
        at = 2 * x - 1, 2 * y / half - 1
        v, T = (chebyshev.chebval2d(*at, c) for c in _coefficients(*lam))
        return np.asarray(v), np.asarray(T)


def _coefficients(s: float, h: float) -> list[Float64[np.ndarray, "m n"]]:
    """Chebyshev coefficients of v and T over the box."""
    (a, da), (b, db) = collocation(_ALONG), collocation(_ACROSS)
    x, high = np.meshgrid((a + 1) / 2, (b + 1) / 2, indexing="ij")
    half = ((1 + s * np.cos(2 * np.pi * (x - 0.5))) / 4).reshape(-1, 1)
    slope = (-s * np.pi / 2 * np.sin(2 * np.pi * (x - 0.5))).reshape(-1, 1)
    dy = np.kron(np.eye(len(a)), 2 * db) / half
    dx = np.kron(2 * da, np.eye(len(b))) - high.reshape(-1, 1) * slope * dy
    laplacian, one = dx @ dx + dy @ dy, np.eye(x.size)
    ends = ((x == 0) | (x == 1)).ravel()
    axis, side = (high == 0).ravel() & ~ends, (high == 1).ravel() & ~ends
    outward = (dy - slope * dx) / np.sqrt(1 + slope**2)
    steady, right = laplacian.copy(), np.zeros(x.size)
    steady[axis], steady[side], steady[ends] = dy[axis], outward[side], dx[ends]
    right[ends] = 1 / (1 - s)
    # Known up to a constant, which comes last.
    v = np.linalg.lstsq(steady, right, rcond=1e-12)[0]
    steady[:], right = laplacian, -((dx @ v) ** 2 + (dy @ v) ** 2)
    steady[axis], steady[ends] = dy[axis], one[ends]
    steady[side] = outward[side] + h * one[side]
    right[axis | side | ends] = 0
    fields = (v, np.linalg.solve(steady, right))
    to = [np.linalg.inv(chebyshev.chebvander(n, len(n) - 1)) for n in (a, b)]
    v, T = (to[0] @ field.reshape(x.shape) @ to[1].T for field in fields)
    v[0, 0] -= chebyshev.chebval2d(0.0, -1.0, v)
    return [v, T]
