"""The Klein-Gordon equation with three parameters, and its reference solution."""

from typing import ClassVar

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .._arguments import ArrayLike, Finite, MayBeEmpty, checked
from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition

# Chebyshev points in x: the solution is analytic there.
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
        """A reference: Chebyshev collocation in space, Diffrax in time.

        For λ = (-1, 0, 1) the solution is x cos t.

        Args:
            t: time in [0, 5].
            x: position in [-1, 1]; broadcasts against t.
            lam: (α, β, γ).

        Returns:
            u, with an absolute error of about 1e-9.
        """
        t, x = np.broadcast_arrays(t, x)
        times, row = np.unique(t, return_inverse=True)
        if not times.size:
            return np.zeros(t.shape)
        nodes = np.cos(np.pi * np.arange(_N + 1) / _N)
        with jax.enable_x64(True):
            states = np.asarray(_solve(jnp.asarray(times), jnp.asarray(lam)))
        # Less x cos t, it vanishes at the walls.
        matrix = _interpolation(nodes, x.ravel())
        w = np.sum(matrix * states[row.ravel()], axis=1)
        return np.asarray(w.reshape(t.shape) + x * np.cos(t))


@jax.jit
def _solve(times: Float[Array, " m"], lam: Float[Array, " 3"]) -> Float[Array, "m n"]:
    """The solution less x cos t at all nodes, at increasing times."""
    nodes = np.cos(np.pi * np.arange(_N + 1) / _N)
    x, second = jnp.asarray(nodes), jnp.asarray(_second_derivative(nodes))
    α, β, γ = lam

    def slope(t: ArrayLike, state: tuple, _: None) -> tuple[Array, Array]:
        w, speed = state
        known = x * jnp.cos(t)
        u = w + known
        rate = known**2 - α * jax.lax.dot(second, w) - β * u - γ * u**2
        # The walls stay where they are.
        return speed, rate.at[0].set(0.0).at[-1].set(0.0)

    zero = jnp.zeros(_N + 1)
    solution = dfx.diffeqsolve(
        dfx.ODETerm(slope),
        dfx.Dopri8(),
        t0=0.0,
        t1=jnp.maximum(times[-1], 1e-3),
        dt0=None,
        y0=(zero, zero),
        saveat=dfx.SaveAt(ts=times),
        stepsize_controller=dfx.PIDController(rtol=1e-10, atol=1e-12),
        max_steps=100_000,
    )
    assert solution.ys is not None
    return solution.ys[0]


def _second_derivative(nodes: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n n"]:
    """The Chebyshev differentiation matrix (Trefethen 2000, chapter 6), squared."""
    c = np.ones(len(nodes))
    c[[0, -1]] = 2
    c *= (-1.0) ** np.arange(len(nodes))
    gap = nodes[:, None] - nodes[None] + np.eye(len(nodes))
    first = np.outer(c, 1 / c) / gap
    first -= np.diag(first.sum(axis=1))
    return first @ first


def _interpolation(
    nodes: Float64[np.ndarray, " n"], x: Float64[np.ndarray, " m"]
) -> Float64[np.ndarray, "m n"]:
    """From values at the nodes to values at x, by the barycentric formula."""
    weights = (-1.0) ** np.arange(len(nodes))
    weights[[0, -1]] /= 2
    gap = x[:, None] - nodes[None]
    hit = np.abs(gap) < 1e-14
    terms = weights / np.where(hit, 1.0, gap)
    matrix = terms / terms.sum(axis=1, keepdims=True)
    return np.where(hit.any(axis=1, keepdims=True), hit.astype(float), matrix)
