"""Where a loss looks: values of λ, collocation points, initial and boundary points."""

import math
from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _arguments as checks
from .._arguments import Count, CountOrZero, MayBeEmpty, checked
from ..box import Box, lattice
from ..problems.conditions import Where
from ..problems.mapped import Mapped

Shape = CountOrZero | MayBeEmpty[tuple[CountOrZero, ...]]


# Of so many points for each that is wanted, those are drawn that spread evenly over the
# image of a box.
_CHOICE = 16


@checked
def uniform(
    domain: Box | Mapped,
    shape: Shape,
    lam: Float[Array, "*p"] | None = None,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "*shape d"]:
    """Points uniform in physical units, log axes included (paper A.5).

    They lie inside of the box, never at its ends, where an equation may be singular; in
    the image of one, nearly uniform, as a choice from sixteen times as many.

    Args:
        domain: a box, or the image of one.
        shape: how many points.
        lam: λ of shape () for one parameter, else (p,), for a `Mapped` domain.
        key: a JAX random key.

    >>> uniform(Box(t=(0, 1), x=(-1, 1)), (5,), key=jr.key(0)).shape
    (5, 2)
    """
    if isinstance(domain, Box):
        return _inside(domain, domain.linear().unscale(_cube(shape, len(domain), key)))
    sizes = shape if isinstance(shape, tuple) else (shape,)
    n = math.prod(sizes)
    first, second = jr.split(key)
    points, log_size = _image(domain, lam, _CHOICE * n, key=first)
    score = log_size + jr.gumbel(second, log_size.shape, log_size.dtype)
    return points[jax.lax.top_k(score, n)[1]].reshape(*sizes, len(domain))


def _image(
    domain: Mapped, lam: Array | None, n: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """The images of random points of the box, and by how much each is stretched."""
    s = uniform(domain.reference, (n,), key=key)
    x, jacobian = jax.vmap(domain.frame, in_axes=(0, None))(s, _wanted(domain, lam))
    return x, jnp.log(jnp.abs(jnp.linalg.det(jacobian)))


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


class Places(eqx.Module):
    """Points of a condition, and the outward unit normals there.

    On a plane between two faces, or at a point alone, the normal is that along the
    coordinate, or zero.
    """

    point: Float[Array, "*n d"]
    normal: Float[Array, "*n d"]


@checked
def condition_points(
    domain: Box | Mapped,
    where: Where,
    n: Count,
    lam: Float[Array, "*p"] | None = None,
    *,
    key: PRNGKeyArray,
) -> Places:
    """Random points where a condition holds, as many on each of its faces.

    They are a lattice that is moved at random, even in the coordinates that are free;
    on the faces of a `Mapped` domain, evenly spread for the given λ. Of a condition at
    a point there is only that one.

    >>> from hyperpinn_eqx.problems.conditions import Where
    >>> box = Box(t=(0, 1), x=(-1, 1))
    >>> places = condition_points(box, Where((("x", -1.0),)), 3, key=jr.key(0))
    >>> print(places.point[:, 1], places.normal[0])
    [-1. -1. -1.] [ 0. -1.]
    """
    if where.at is not None and None not in where.at:
        n = 1
    box = domain.reference
    if isinstance(domain, Box) or where.at is not None:
        points = _inside(box, _spread(box, where, n, key=key))
        return placed(domain, where, points, lam)[0]
    first, second = jr.split(key)
    faces = len(where.faces)
    each = -(-n // faces)
    many = _spread(box, where, _CHOICE * each * faces, key=first)
    places, area = placed(domain, where, _inside(box, many), lam)
    # On each face a draw without replacement, by area.
    score = jnp.log(area) + jr.gumbel(second, area.shape, area.dtype)
    _, chosen = jax.lax.top_k(score.reshape(-1, faces).T, each)
    rows = (chosen.T * faces + jnp.arange(faces, dtype=chosen.dtype)[None]).ravel()[:n]
    return jax.tree.map(lambda a: a[rows], places)


def placed(
    domain: Box | Mapped,
    where: Where,
    s: Float[Array, "n d"],
    lam: Float[Array, "*p"] | None,
    *,
    each: bool = False,
) -> tuple[Places, Float[Array, " n"]]:
    """Points of the reference box moved to where a condition holds, and then mapped.

    Args:
        domain: the domain.
        where: the condition's places.
        s: points of the reference box.
        lam: λ, for a `Mapped` domain.
        each: whether every point has a λ of its own, with a first axis for them.

    Returns:
        The places, and the area of the image of a unit of the face there.
    """
    s, normal = _held(domain.reference, where, s)
    if isinstance(domain, Box):
        return Places(s, normal), jnp.ones(len(s), s.dtype)
    lam = _wanted(domain, lam)
    face = jax.vmap(domain.face, in_axes=(0, 0 if each else None, 0))
    x, normal, area = face(s, lam, normal)
    return Places(x, normal), area


def _wanted(domain: Mapped, lam: Array | None) -> Array:
    if lam is None:
        raise ValueError(f"lam = None, expected the λ at which to take {domain}")
    return lam


def _held(
    domain: Box, where: Where, points: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """Points of a box moved to where a condition holds, and the normals there."""
    held, normal = np.full(points.shape, np.nan), np.zeros(points.shape)
    for rows, fixed in _faces(domain, where, len(points)):
        for axis, value in fixed.items():
            held[rows, axis] = value
            if where.at is None:
                normal[rows, axis] = -1.0 if value == domain.low[axis] else 1.0
    there = jnp.asarray(np.nan_to_num(held), points.dtype)
    points = jnp.where(np.isnan(held), points, there)
    return points, jnp.asarray(normal, points.dtype)


@checked
def residual_adaptive(
    residual: Callable[[Float[Array, "c d"]], Float[Array, " c"]],
    domain: Box | Mapped,
    n: Count,
    lam: Float[Array, "*p"] | None = None,
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
        domain: a box, or the image of one.
        n: how many points to draw, at most `candidates`.
        lam: λ, for a `Mapped` domain, see `uniform`.
        candidates: how many to choose from.
        key: a JAX random key.

    Raises:
        ValueError: fewer candidates than points, or a residual that is not one finite
            number for each candidate.
    """
    if n > candidates:
        raise ValueError(f"n = {n}, expected at most candidates = {candidates}")
    point_key, draw_key = jr.split(key)
    if isinstance(domain, Box):
        points, log_size = uniform(domain, (candidates,), key=point_key), None
    else:
        points, log_size = _image(domain, lam, candidates, key=point_key)
    r = jnp.abs(
        checks.array("residual(points)", residual(points), candidates, finite=True)
    )
    # The largest n of log p + Gumbel noise are a draw without replacement.
    size = None if log_size is None else jnp.exp(log_size).astype(r.dtype)
    score = jnp.log(r / jnp.average(r, weights=size) + 1)
    if size is not None:
        score += jnp.log(size)
    score += jr.gumbel(draw_key, r.shape, r.dtype)
    return points[jax.lax.top_k(score, n)[1]]


def _spread(
    box: Box, where: Where, n: int, *, key: PRNGKeyArray
) -> Float[Array, "n d"]:
    """Points that are even on each face: a lattice there, moved by a random vector.

    What holds on a face is put in later, see `_held`.
    """
    unit = np.zeros((n, len(box)))
    for rows, fixed in _faces(box, where, n):
        free = [axis for axis in range(len(box)) if axis not in fixed]
        # A lattice in more dimensions is even in all of them together, not in fewer.
        unit[rows[:, None], free] = lattice(len(rows), len(free))
    move = jr.uniform(key, (len(box),))
    moved = (jnp.asarray(unit, move.dtype) + move[None]) % 1
    return box.linear().unscale(2 * moved - 1)


def _faces(
    box: Box, where: Where, n: int
) -> Iterator[tuple[np.ndarray, dict[int, float]]]:
    """Which of n points are on each face, which take turns, and what is fixed there.

    All are at a point, or on a line. What is fixed: the value along each axis.
    """
    if where.at is not None:
        every = enumerate(where.at)
        yield np.arange(n), {axis: v for axis, v in every if v is not None}
    for i, (name, value) in enumerate(where.faces):
        yield np.arange(i, n, len(where.faces)), {box.names.index(name): value}


def _cube(shape: int | tuple[int, ...], d: int, key: PRNGKeyArray) -> Array:
    sizes = shape if isinstance(shape, tuple) else (shape,)
    return jr.uniform(key, (*sizes, d), minval=-1, maxval=1)
