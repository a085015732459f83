"""Where a loss looks: values of λ, collocation points, initial and boundary points."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _arguments as checks
from ..box import Box
from ..problems.base import AbstractPDE, has_ends


def uniform(
    box: Box, shape: int | tuple[int, ...], *, key: PRNGKeyArray
) -> Float[Array, "*shape d"]:
    """Points uniform in physical units, log axes included (paper A.5).

    They lie inside of the box, never at its ends, where an equation may be singular.

    Raises:
        ValueError: `shape` is no tuple of sizes, or there is no key.
        TypeError: `box` is no `Box`.

    >>> uniform(Box(t=(0, 1), x=(-1, 1)), (5,), key=jr.key(0)).shape
    (5, 2)
    """
    checks.instance("box", box, Box)
    points = box.linear().unscale(_cube(shape, len(box), key))
    low, high = (np.array(ends, points.dtype) for ends in (box.low, box.high))
    step = np.finfo(points.dtype).eps * (high - low)
    first = np.maximum(low + step, np.nextafter(low, high))
    last = np.minimum(high - step, np.nextafter(high, low))
    first, last = (jnp.broadcast_to(end, points.shape) for end in (first, last))
    return jnp.clip(points, first, last)


def log_uniform(
    box: Box, shape: int | tuple[int, ...], *, key: PRNGKeyArray
) -> Float[Array, "*shape d"]:
    """Points uniform in scaled units: log-uniform on log axes, uniform on others.

    Raises:
        ValueError: `shape` is no tuple of sizes, or there is no key.
        TypeError: `box` is no `Box`.
    """
    checks.instance("box", box, Box)
    return box.unscale(_cube(shape, len(box), key))


def spread(box: Box, n: int, *, key: PRNGKeyArray) -> Float[Array, "n d"]:
    """A Latin hypercube in scaled units: one of n points in each n-th of every axis.

    Raises:
        ValueError: n is negative, or there is no key.
        TypeError: `box` is no `Box`.

    >>> spread(Box(nu=(1e-3, 1e-1, "log")), 8, key=jr.key(0)).shape
    (8, 1)
    """
    checks.instance("box", box, Box)
    n = checks.count("n", n, 0)
    jitter_key, *keys = jr.split(checks.random_key("key", key), 1 + len(box))
    cells = jnp.stack([jr.permutation(k, n) for k in keys], axis=1).astype(float)
    unit = (cells + jr.uniform(jitter_key, (n, len(box)))) / n
    return box.unscale(2 * unit - 1)


def chebyshev(box: Box, counts: tuple[int, ...]) -> Float[Array, "n d"]:
    """The Chebyshev nodes of every axis in scaled units, and all their combinations.

    A smooth dependence on λ is learned best from them: they crowd at the ends of a
    range, where nothing but extrapolation would help. A periodic range has no ends, and
    its nodes are equispaced.

    Args:
        box: the ranges.
        counts: nodes along each axis; 1 takes its middle.

    Raises:
        ValueError: not one positive count for each axis.
        TypeError: `box` is no `Box`.

    >>> print(chebyshev(Box(a=(2, 2), b=(-4, 4)), (1, 3)).round(2) + 0.0)
    [[ 2.   -3.46]
     [ 2.    0.  ]
     [ 2.    3.46]]
    """
    checks.instance("box", box, Box)
    counts = _sizes("counts", counts, 1)
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


def conditions(
    problem: AbstractPDE,
    n_initial: int = 50,
    n_boundary: int = 50,
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "I d"], Float[Array, "B d"]]:
    """Random points of the initial time and of the walls in space (paper A.5).

    Without a coordinate `t` that is not periodic there are no initial points, and
    without another one that is not periodic no boundary points.

    Raises:
        ValueError: a negative number of points, or no key.
        TypeError: `problem` is no `AbstractPDE`.
    """
    checks.instance("problem", problem, AbstractPDE)
    n_initial = checks.count("n_initial", n_initial, 0)
    n_boundary = checks.count("n_boundary", n_boundary, 0)
    box = problem.domain
    keys = jr.split(checks.random_key("key", key), 3)
    initial_key, boundary_key, side_key = keys
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


def residual_adaptive(
    size: Callable[[Float[Array, "c d"]], Float[Array, " c"]],
    box: Box,
    n: int,
    *,
    candidates: int = 4096,
    key: PRNGKeyArray,
) -> Float[Array, "n d"]:
    """Collocation points drawn where the residual is large.

    Of uniform candidates, each is drawn with probability proportional to
    `|r| / mean |r| + 1`, without replacement: half of the points follow the residual
    and half stay uniform. (Wu et al. 2023, CMAME 403, "RAD" with k = c = 1.)

    Args:
        size: the residual at candidates of shape (c, d).
        box: the domain.
        n: how many points to draw, at most `candidates`.
        candidates: how many to choose from.
        key: a JAX random key.

    Raises:
        ValueError: fewer candidates than points, no key, or a residual that is not one
            finite number for each candidate.
        TypeError: `size` is no function, or `box` no `Box`.
    """
    checks.function("size", size)
    checks.instance("box", box, Box)
    n, candidates = checks.count("n", n), checks.count("candidates", candidates)
    if n > candidates:
        raise ValueError(f"n = {n}, expected at most candidates = {candidates}")
    point_key, draw_key = jr.split(checks.random_key("key", key))
    points = uniform(box, (candidates,), key=point_key)
    r = jnp.abs(checks.array("size(points)", size(points), candidates, finite=True))
    # The largest n of log p + Gumbel noise are a draw without replacement.
    score = jnp.log(r / jnp.mean(r) + 1) + jr.gumbel(draw_key, r.shape, r.dtype)
    return points[jax.lax.top_k(score, n)[1]]


def _cube(shape: int | tuple[int, ...], d: int, key: PRNGKeyArray) -> Array:
    checks.random_key("key", key)
    return jr.uniform(key, (*_sizes("shape", shape, 0), d), minval=-1, maxval=1)


def _sizes(name: str, value: int | Sequence[int], least: int) -> tuple[int, ...]:
    sizes = value if isinstance(value, tuple | list) else (value,)
    return tuple(checks.count(f"{name}[{i}]", n, least) for i, n in enumerate(sizes))
