"""Burgers' equation by the method of lines: three discretisations for `solver.py`.

All use that u is odd in x: the unknowns are the values at n or so points of (0, 1).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Term = Callable[[jax.Array], jax.Array]


class Space(NamedTuple):
    """Points, the terms -u u_x and u_xx, and the matrix from there to other points."""

    x: np.ndarray
    advection: Term
    diffusion: Term
    onto: np.ndarray


def sines(n: int, points: np.ndarray) -> Space:
    """Sine series through equispaced points."""
    x, k = np.arange(1, n) / n, np.pi * np.arange(1, n)
    series = np.linalg.inv(np.sin(np.outer(x, k)))
    first = np.cos(np.outer(x, k)) * k @ series
    second = -np.sin(np.outer(x, k)) * k**2 @ series
    return _collocation(x, first, second, np.sin(np.outer(points, k)) @ series)


def chebyshev(n: int, points: np.ndarray) -> Space:
    """Chebyshev points, which crowd at the shock.

    Trefethen (2000), Spectral Methods in MATLAB, chapter 6.
    """
    x = (1 + np.cos(np.pi * np.arange(n + 1) / n)) / 2
    ends = np.isin(np.arange(n + 1), (0, n))
    c = (-1.0) ** np.arange(n + 1) * np.where(ends, 2, 1)
    first = np.outer(c, 1 / c) / (x[:, None] - x + np.eye(n + 1))
    first -= np.diag(first.sum(axis=1))
    gaps = np.abs(points)[:, None] - x
    # The barycentric formula wants points beside the nodes, not on them.
    near = 1 / (c * np.where(np.abs(gaps) < 1e-12, 1e-12, gaps))
    onto = np.sign(points)[:, None] * near / near.sum(axis=1, keepdims=True)
    # u vanishes at both ends.
    inner = slice(1, -1)
    second = (first @ first)[inner, inner]
    return _collocation(x[inner], first[inner, inner], second, onto[:, inner])


def volumes(n: int, points: np.ndarray) -> Space:
    """Finite volumes with van Leer's MC limiter and Godunov's flux.

    They take a shock without resolving it. LeVeque (2002), Finite Volume Methods for
    Hyperbolic Problems, chapters 6 and 12.
    """
    x = (np.arange(n) + 0.5) / n

    def advection(u: jax.Array) -> jax.Array:
        u = _with_ghosts(u)
        d = jnp.diff(u)
        a, b = d[:-1], d[1:]
        least = jnp.minimum(2 * jnp.minimum(abs(a), abs(b)), abs(a + b) / 2)
        half = jnp.where(a * b > 0, jnp.sign(a) * least, 0) / 2
        left, right = (u[1:-1] + half)[:-1], (u[1:-1] - half)[1:]
        flux = jnp.maximum(jnp.maximum(left, 0) ** 2, jnp.minimum(right, 0) ** 2) / 2
        return -n * jnp.diff(flux)

    def diffusion(u: jax.Array) -> jax.Array:
        return n**2 * jnp.diff(_with_ghosts(u)[1:-1], 2)

    nodes = np.concatenate([-x[:1], x, 2 - x[-1:]])
    values = np.vstack([-np.eye(n)[:1], np.eye(n), -np.eye(n)[-1:]])
    rows = [np.interp(np.abs(points), nodes, column) for column in values.T]
    return Space(x, advection, diffusion, np.sign(points)[:, None] * np.array(rows).T)


def _collocation(
    x: np.ndarray, first: np.ndarray, second: np.ndarray, onto: np.ndarray
) -> Space:
    # At these sizes a dense product is faster than a Fourier transform.
    d, dd = jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32)
    return Space(x, lambda u: -u * (d @ u), lambda u: dd @ u, onto)


def _with_ghosts(u: jax.Array) -> jax.Array:
    """Two more cells at each end, where u continues odd."""
    return jnp.concatenate([-u[1::-1], u, -u[:-3:-1]])
