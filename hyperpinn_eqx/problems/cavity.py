"""The lid-driven cavity at any Reynolds number, and its reference solution."""

from collections.abc import Iterator
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse
from jaxtyping import Array, Float, Float64
from scipy.interpolate import RectBivariateSpline
from scipy.sparse.linalg import splu, spsolve

from .._arguments import ArrayLike, Finite, MayBeEmpty, checked
from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition

Jets = tuple[Jet, Jet, Jet]

# Cells along each side of the reference's two grids.
_CELLS = (56, 80)


def _lid(x: Any, xp: Any = jnp) -> Any:
    """How fast the lid moves: it rests in the corners."""
    return 1 - xp.cosh(50 * (x - 0.5)) / np.cosh(25.0)


class Cavity(AbstractPDE):
    """Steady flow (u, v) with the pressure p in a box with a moving lid.

    (u·∇)u = -∇p + ∇²u / Re and ∇·u = 0 on the unit square, for Reynolds numbers Re in
    [50, 1000]. The lid y = 1 moves with the speed 1 - cosh(50 (x - 1/2)) / cosh 25, at
    the other walls the fluid rests, and p is zero in the middle of the floor.

    >>> u, v, p = Cavity().exact(0.5, 1.0, 100.0)
    >>> print(f"{u:.3f} {abs(v):.3f}")
    1.000 0.000
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "v", "p")
    domain: ClassVar[Box] = Box(x=(0.0, 1.0), y=(0.0, 1.0))
    parameters: ClassVar[Box] = Box(Re=(50.0, 1000.0, "log"))

    def residual(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        u, v, p = w
        return (
            u.value * u.x + v.value * u.y + p.x - (u.xx + u.yy) / lam,
            u.value * v.x + v.value * v.y + p.y - (v.xx + v.yy) / lam,
            u.x + v.y,
        )

    @condition(y=1)
    def lid(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        return w[0].value - _lid(xy[0]), w[1].value

    @condition(x=(0, 1), y=0)
    def walls(
        self, w: Jets, xy: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        return w[0].value, w[1].value

    @condition(at=(0.5, 0))
    def floor(
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
        """A reference, by finite differences for stream function and vorticity.

        Args:
            x: position along the lid.
            y: height; broadcasts against x.
            lam: the Reynolds number Re.

        Returns:
            u, v and p, with an error of about a thousandth of the largest.
        """
        x, y = np.broadcast_arrays(x, y)
        coarse, fine = ([*_at(Grid(n), x, y, float(lam))] for n in _CELLS)
        # Errors fall with the square of the cells (Richardson).
        ratio = (_CELLS[1] / _CELLS[0]) ** 2
        u, v, p = (
            np.asarray((ratio * b - a) / (ratio - 1))
            for a, b in zip(coarse, fine, strict=True)
        )
        return u, v, p


def _at(
    grid: "Grid", x: np.ndarray, y: np.ndarray, reynolds: float
) -> Iterator[Float64[np.ndarray, "*n"]]:
    for field in grid.flow(reynolds, _lid(grid.nodes, np)):
        spline = RectBivariateSpline(grid.nodes, grid.nodes, field)
        yield spline(x, y, grid=False).reshape(x.shape)


class Grid:
    """Finite differences of second order on a grid that is finer at the walls.

    Attributes:
        nodes: along each side, n + 1 of them.
    """

    def __init__(self, n: int):
        s = np.linspace(-1, 1, n + 1)
        # Finest at the walls, where the cells are a third of those in the middle.
        self.nodes = (1 + np.tanh(1.2 * s) / np.tanh(1.2)) / 2
        first, second = _differences(self.nodes)
        eye = sparse.identity(n + 1)
        self.dx, self.dy = (
            sparse.kron(first, eye).tocsr(),
            sparse.kron(eye, first).tocsr(),
        )
        self.laplacian = (sparse.kron(second, eye) + sparse.kron(eye, second)).tocsr()
        side = np.zeros((n + 1, n + 1), bool)
        side[[0, -1]] = True
        self.ends, self.walls = side.ravel(), side.T.ravel()

    def flow(
        self, reynolds: float, lid: Float64[np.ndarray, " n"]
    ) -> list[Float64[np.ndarray, "n n"]]:
        """U, v and p for the speed of the lid at the nodes.

        Newton's method, from the flow at lower Reynolds numbers.
        """
        m = self.nodes.size
        edge, corner = self.ends | self.walls, self.ends & self.walls
        keep = sparse.diags((~edge).astype(float))
        known = sparse.diags(edge.astype(float))
        # On the edge ψ = 0, and ω = -ψ_nn, which its normal slope is part of.
        bend, by_slope = _wall(self.nodes)
        ends, walls = (
            sparse.diags((side & ~corner).astype(float))
            for side in (self.ends, self.walls)
        )
        eye = sparse.identity(m)
        at_edge = ends @ sparse.kron(bend, eye) + walls @ sparse.kron(eye, bend)
        right = np.zeros((m, m))
        right[1:-1, -1] = by_slope * lid[1:-1]
        right = right.ravel()
        state = np.zeros(2 * m * m)
        start = [r for r in (1.0, 100.0, 400.0, 1000.0) if r < reynolds]
        for re in (*start, reynolds):
            for _ in range(20):
                ψ, ω = np.split(state, 2)
                u, v = self.dy @ ψ, -self.dx @ ψ
                ωx, ωy = self.dx @ ω, self.dy @ ω
                by_ψ = sparse.diags(ωx) @ self.dy - sparse.diags(ωy) @ self.dx
                by_ω = sparse.diags(u) @ self.dx + sparse.diags(v) @ self.dy
                by_ω = by_ω - self.laplacian / re
                residual = np.concatenate(
                    [
                        np.where(edge, ψ, self.laplacian @ ψ + ω),
                        np.where(
                            edge,
                            at_edge @ ψ + ω + right,
                            u * ωx + v * ωy - self.laplacian @ ω / re,
                        ),
                    ]
                )
                if np.max(np.abs(residual)) < 1e-9 * re:
                    break
                matrix = sparse.bmat(
                    [
                        [keep @ self.laplacian + known, keep],
                        [keep @ by_ψ + at_edge, keep @ by_ω + known],
                    ]
                )
                state = state - splu(matrix.tocsc()).solve(residual)
        ψ, ω = np.split(state, 2)
        u, v = self.dy @ ψ, -self.dx @ ψ
        p = self._pressure(u, v, ω, reynolds)
        return [field.reshape(m, m) for field in (u, v, p)]

    def _pressure(
        self, u: np.ndarray, v: np.ndarray, ω: np.ndarray, reynolds: float
    ) -> np.ndarray:
        """By least squares from its gradient, zero in the middle of the floor."""
        # ∇²(u, v) = (-ω_y, ω_x).
        right = [
            -self.dy @ ω / reynolds - u * (self.dx @ u) - v * (self.dy @ u),
            self.dx @ ω / reynolds - u * (self.dx @ v) - v * (self.dy @ v),
        ]
        gradient = sparse.vstack([self.dx, self.dy])
        h = np.gradient(self.nodes)
        weight = np.tile(np.outer(h, h).ravel(), 2)
        weighted = gradient.T @ sparse.diags(weight)
        normal = (weighted @ gradient).tocsc()
        middle = self.nodes.size // 2 * self.nodes.size
        pinned = sparse.csc_matrix(([1.0], ([middle], [middle])), normal.shape)
        p = spsolve(normal + pinned, weighted @ np.concatenate(right))
        return p - p[middle]


def _wall(x: Float64[np.ndarray, " n"]) -> tuple[Any, float]:
    """The second derivative at both ends of what is zero there, as a matrix.

    From the cubic through the next two nodes with a given slope, and by how much it
    follows a slope along x at the last node.
    """
    n = len(x)
    s = x[1:3] - x[0]
    weights = 2 * np.linalg.inv(np.stack([s**2, s**3], axis=1))[0]
    bend = sparse.lil_matrix((n, n))
    bend[0, [1, 2]], bend[n - 1, [n - 2, n - 3]] = weights, weights
    return bend.tocsr(), float(weights @ s)


def _differences(x: Float64[np.ndarray, " n"]) -> tuple[Any, Any]:
    """The first and second derivative at the nodes, from three of them each."""
    n = len(x)
    first, second = sparse.lil_matrix((n, n)), sparse.lil_matrix((n, n))
    for i in range(n):
        at = np.clip(i, 1, n - 2) + np.array([-1, 0, 1])
        powers = (x[at] - x[i]) ** np.arange(3)[:, None]
        weights = np.linalg.solve(powers, np.diag([1.0, 1.0, 2.0])[:, 1:])
        first[i, at], second[i, at] = weights.T
    return first.tocsr(), second.tocsr()
