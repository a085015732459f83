"""Where a loss looks: values of λ, collocation points, initial and boundary points."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _arguments as checks
from .._arguments import Count, CountOrZero, MayBeEmpty, checked
from ..box import Box
from ..problems.base import AbstractPDE, has_ends

Shape = CountOrZero | MayBeEmpty[tuple[CountOrZero, ...]]


@checked
def uniform(box: Box, shape: Shape, *, key: PRNGKeyArray) -> Float[Array, "*shape d"]:
    """Points uniform in physical units, log axes included (paper A.5).

    They lie inside of the box, never at its ends, where an equation may be singular.

    >>> uniform(Box(t=(0, 1), x=(-1, 1)), (5,), key=jr.key(0)).shape
    (5, 2)
    """
    points = box.linear().unscale(_cube(shape, len(box), key))
    low, high = (np.array(ends, points.dtype) for ends in (box.low, box.high))
    step = np.finfo(points.dtype).eps * (high - low)
    first = np.maximum(low + step, np.nextafter(low, high))
    last = np.minimum(high - step, np.nextafter(high, low))
    first, last = (jnp.broadcast_to(end, points.shape) for end in (first, last))
    return jnp.clip(points, first, last)


@checked
def log_uniform(
    box: Box, shape: Shape, *, key: PRNGKeyArray
) -> Float[Array, "*shape d"]:
    """Points uniform in scaled units: log-uniform on log axes, uniform on others."""
    return box.unscale(_cube(shape, len(box), key))


@checked
def latin_hypercube(
    box: Box, n: CountOrZero, *, key: PRNGKeyArray
) -> Float[Array, "n d"]:
    """A Latin hypercube in scaled units: one of n points in each n-th of every axis.

    >>> latin_hypercube(Box(nu=(1e-3, 1e-1, "log")), 8, key=jr.key(0)).shape
    (8, 1)
    """
    jitter_key, *keys = jr.split(key, 1 + len(box))
    cells = jnp.stack([jr.permutation(k, n) for k in keys], axis=1).astype(float)
    unit = (cells + jr.uniform(jitter_key, (n, len(box)))) / n
    return box.unscale(2 * unit - 1)


@checked
def chebyshev_nodes(box: Box, counts: tuple[Count, ...]) -> Float[Array, "n d"]:
    """The Chebyshev nodes of every axis in scaled units, and all their combinations.

    A smooth dependence on λ is learned best from them: they crowd at the ends of a
    range, where nothing but extrapolation would help. A periodic range has no ends, and
    its nodes are equispaced.

    Args:
        box: the ranges.
        counts: nodes along each axis; 1 takes its middle.

    Raises:
        ValueError: not one count for each axis.

    >>> print(chebyshev_nodes(Box(a=(2, 2), b=(-4, 4)), (1, 3)).round(2) + 0.0)
    [[ 2.   -3.46]
     [ 2.    0.  ]
     [ 2.    3.46]]
    """
    if len(counts) != len(box):
        raise ValueError(f"counts = {counts}, expected {len(box)}, one for each axis")
    middles = [(jnp.arange(float(n)) + 0.5) / n for n in counts]
    nodes = [
        2 * middle - 1 if periodic else -jnp.cos(jnp.pi * middle)
        for middle, periodic in zip(middles, box.periodic, strict=True)
    ]
    grid = jnp.meshgrid(*nodes, indexing="ij")
    return box.unscale(jnp.stack([axis.ravel() for axis in grid], axis=-1))


def lattice(n: int, d: int) -> Float[np.ndarray, "n d"]:
    """Points that fill the unit cube evenly, the same every time.

    Multiples, modulo 1, of the powers of an irrational number: for d = 1, of the
    golden ratio. (The sequence R_d of Roberts 2018.)
    """
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (d + 1))
    return (0.5 + np.outer(np.arange(n), root ** -np.arange(1.0, d + 1))) % 1


@checked
def conditions(
    problem: AbstractPDE,
    n_initial: CountOrZero = 50,
    n_boundary: CountOrZero = 50,
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "I d"], Float[Array, "B d"]]:
    """Random points of the initial time and of the walls in space (paper A.5).

    Without a coordinate `t` that is not periodic there are no initial points, and
    without another one that is not periodic no boundary points.
    """
    box = problem.domain
    initial_key, boundary_key, side_key = jr.split(key, 3)
    time = [i for i, there in enumerate(has_ends(box, time=True)) if there]
    space = [i for i, there in enumerate(has_ends(box, time=False)) if there]
    initial = uniform(box, (n_initial if time else 0,), key=initial_key)
    for i in time:
        initial = initial.at[:, i].set(box.low[i])

    boundary = uniform(box, (n_boundary if space else 0,), key=boundary_key)
    if space:
        walls = jnp.array([(i, side) for i in space for side in (0, 1)])
        axis, side = walls[jr.randint(side_key, (n_boundary,), 0, len(walls))].T
        ends = jnp.array([box.low, box.high], dtype=boundary.dtype)
        boundary = boundary.at[jnp.arange(n_boundary), axis].set(ends[side, axis])
    return initial, boundary


@checked
def residual_adaptive(
    residual: Callable[[Float[Array, "c d"]], Float[Array, " c"]],
    box: Box,
    n: Count,
    *,
    candidates: Count = 4096,
    key: PRNGKeyArray,
) -> Float[Array, "n d"]:
    """Collocation points drawn where the residual is large.

    Of uniform candidates, each is drawn with probability proportional to
    `|r| / mean |r| + 1`, without replacement: half of the points follow the residual
    and half stay uniform. (Wu et al. 2023, CMAME 403, "RAD" with k = c = 1.)

    Args:
        residual: its values at candidates of shape (c, d).
        box: the domain.
        n: how many points to draw, at most `candidates`.
        candidates: how many to choose from.
        key: a JAX random key.

    Raises:
        ValueError: fewer candidates than points, or a residual that is not one finite
            number for each candidate.
    """
    if n > candidates:
        raise ValueError(f"n = {n}, expected at most candidates = {candidates}")
    point_key, draw_key = jr.split(key)
    points = uniform(box, (candidates,), key=point_key)
    r = jnp.abs(
        checks.array("residual(points)", residual(points), candidates, finite=True)
    )
    # The largest n of log p + Gumbel noise are a draw without replacement.
    score = jnp.log(r / jnp.mean(r) + 1) + jr.gumbel(draw_key, r.shape, r.dtype)
    return points[jax.lax.top_k(score, n)[1]]


def _cube(shape: int | tuple[int, ...], d: int, key: PRNGKeyArray) -> Array:
    sizes = shape if isinstance(shape, tuple) else (shape,)
    return jr.uniform(key, (*sizes, d), minval=-1, maxval=1)
