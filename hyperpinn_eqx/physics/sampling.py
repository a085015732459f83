"""Where a loss looks: values of λ, collocation points, initial and boundary points."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _arguments as checks
from .._arguments import Count, CountOrZero, MayBeEmpty, checked
from ..box import Box
from ..problems.conditions import Where

Shape = CountOrZero | MayBeEmpty[tuple[CountOrZero, ...]]


@checked
def uniform(box: Box, shape: Shape, *, key: PRNGKeyArray) -> Float[Array, "*shape d"]:
    """Points uniform in physical units, log axes included (paper A.5).

    They lie inside of the box, never at its ends, where an equation may be singular.

    >>> uniform(Box(t=(0, 1), x=(-1, 1)), (5,), key=jr.key(0)).shape
    (5, 2)
    """
    return _inside(box, box.linear().unscale(_cube(shape, len(box), key)))


def _inside(box: Box, points: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Moves points at the ends of a box by a rounding."""
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


class Places(eqx.Module):
    """Points of a condition, and the outward unit normals there.

    On a plane between two faces, or at a point alone, the normal is that along the
    coordinate, or zero.
    """

    point: Float[Array, "*n d"]
    normal: Float[Array, "*n d"]


@checked
def condition_points(
    domain: Box, where: Where, n: Count, *, key: PRNGKeyArray
) -> Places:
    """Random points where a condition holds, as many on each of its faces.

    They are a Latin hypercube in the coordinates that are free. Of a condition at a
    point there is only that one.

    >>> from hyperpinn_eqx.problems.conditions import Where
    >>> box = Box(t=(0, 1), x=(-1, 1))
    >>> places = condition_points(box, Where((("x", -1.0),)), 3, key=jr.key(0))
    >>> print(places.point[:, 1], places.normal[0])
    [-1. -1. -1.] [ 0. -1.]
    """
    if where.at is not None and None not in where.at:
        n = 1
    points = _inside(domain, latin_hypercube(domain.linear(), n, key=key))
    return Places(*normals(domain, where, points))


def normals(
    domain: Box, where: Where, points: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """Points of the domain moved to where a condition holds, and the normals there."""
    held, normal = np.full(points.shape, np.nan), np.zeros(points.shape)
    if where.at is not None:
        held[:] = [np.nan if value is None else value for value in where.at]
    else:
        axis = np.array([domain.names.index(name) for name, _ in where.faces])
        value = np.array([value for _, value in where.faces])
        sign = np.where(value == np.array(domain.low)[axis], -1.0, 1.0)
        row, face = np.arange(len(held)), np.arange(len(held)) % len(axis)
        held[row, axis[face]] = value[face]
        normal[row, axis[face]] = sign[face]
    there = jnp.asarray(np.nan_to_num(held), points.dtype)
    points = jnp.where(np.isnan(held), points, there)
    return points, jnp.asarray(normal, points.dtype)


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
