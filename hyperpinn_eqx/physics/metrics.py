"""How good a model is: errors over a family, against the exact solution."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Float64

from .. import _arguments as checks
from .. import _programs as programs
from .._arguments import ArrayLike, Finite, TwoOrMore, checked
from ..box import Box, unpack
from ..networks.jets import network_values
from ..networks.main import MainNet, precision
from ..networks.model import AbstractModel, cast
from ..problems.base import AbstractPDE
from ..problems.mapped import Mapped
from .sampling import latin_hypercube


@checked
class FamilyError(eqx.Module):
    """The error of a model over a family of equations.

    Attributes:
        lam: the values of λ, shape (M,), or (M, p) for several parameters.
        mse: mean squared error over the space-time grid for each λ, shape (M,); NaN
            where the model is not finite.
        relative_l2: relative L2 error for each λ, shape (M,); infinite or NaN where the
            solution is zero.
        fields: for several fields, the same of each by name. Their root mean square is
            `relative_l2`, and their mean `mse`.

    >>> error = FamilyError(np.ones(1), np.ones(1), np.full(1, 0.5))
    >>> print(FamilyError.of_fields({"u": error, "v": error}).relative_l2)
    [0.5]
    """

    lam: Finite[Float64[np.ndarray, " M *p"]]
    mse: Float64[np.ndarray, " M"]
    relative_l2: Float64[np.ndarray, " M"]
    fields: dict[str, "FamilyError"] = eqx.field(default_factory=dict)

    @classmethod
    def of_fields(cls, fields: Mapping[str, "FamilyError"]) -> "FamilyError":
        """The error of all fields together, from that of each."""
        first, *others = fields.values()
        if not others:
            return first
        relative = np.stack([one.relative_l2 for one in fields.values()])
        mse = np.mean([one.mse for one in fields.values()], axis=0)
        rms = np.sqrt(np.mean(relative**2, axis=0))
        return cls(first.lam, mse, rms, dict(fields))

    @property
    def mean(self) -> float:
        """The mean squared error over the whole family, the paper's measure."""
        return float(np.mean(self.mse))

    @property
    def pooled(self) -> float:
        """The relative L2 error over all λ together: large solutions count for more.

        Of several fields, the root mean square of theirs.
        """
        if self.fields:
            each = [one.pooled for one in self.fields.values()]
            return float(np.sqrt(np.mean(np.square(each))))
        with np.errstate(divide="ignore", invalid="ignore"):
            sizes = self.mse / self.relative_l2**2
        return float(np.sqrt(np.sum(self.mse) / np.sum(sizes[np.isfinite(sizes)])))


@checked
def family_error(
    model: AbstractModel,
    problem: AbstractPDE,
    *,
    n_lam: TwoOrMore = 64,
    n_t: TwoOrMore = 101,
    n_x: TwoOrMore | None = None,
    lams: Float64[ArrayLike, " M *p"] | None = None,
) -> FamilyError:
    """The error over values of λ on an equispaced grid over the domain, in float64.

    Of a `Mapped` domain, the grid is that of the reference box, and every point counts
    by its share of the image.

    The defaults are the evaluation set of every table in the book. Where many models
    are measured by one problem, `metrics.EvaluationSet` computes its solution once.

    Args:
        model: a HyperPINN or a baseline.
        problem: a family with an exact solution: `exact(t, x, lam)`, with as many
            coordinates as its domain has; of several fields a tuple with one for each.
        n_lam: values of λ: of one parameter equispaced in physical units, both ends
            included; of several a Latin hypercube, see `latin_hypercube`.
        n_t: times.
        n_x: positions along each other coordinate; by default 256 along a single one,
            and 32 along each of several.
        lams: values of λ to take instead, such as some that no training saw, shape
            (M,), or (M, p) for p > 1 parameters.

    Returns:
        A `FamilyError` with the errors of each λ.

    Raises:
        ValueError: a λ outside of what the problem allows, a model that does not give
            one number for each field at a point, or a problem without an `exact`.
    """
    return EvaluationSet(problem, n_lam=n_lam, n_t=n_t, n_x=n_x, lams=lams).error(model)


class EvaluationSet:
    """The exact solution where `family_error` compares it, for many models.

    A training that watches its error would else spend most of its time on the solution
    of a problem that stays the same.

    Args:
        problem: as of `family_error`, as are all others.
        n_lam: values of λ.
        n_t: times.
        n_x: positions along each other coordinate.
        lams: values of λ to take instead.

    Raises:
        ValueError: as `family_error`.
    """

    @checked
    def __init__(
        self,
        problem: AbstractPDE,
        *,
        n_lam: TwoOrMore = 64,
        n_t: TwoOrMore = 101,
        n_x: TwoOrMore | None = None,
        lams: Float64[ArrayLike, " M *p"] | None = None,
    ):
        check_measurable(problem)
        box, range_ = problem.domain.reference, problem.parameters
        if n_x is None:
            n_x = 256 if len(box) - ("t" in box.names) < 2 else 32
        counts = (n_t if name == "t" else n_x for name in box.names)
        rows = zip(box.low, box.high, counts, strict=True)
        self.axes = [np.linspace(*row) for row in rows]
        # Whatever the caller's precision: an error of 1e-7 is not measured in float32.
        with jax.enable_x64(True):
            if lams is None and len(range_) == 1:
                lams = np.linspace(range_.low[0], range_.high[0], n_lam)
            elif lams is None:
                lams = np.asarray(latin_hypercube(range_, n_lam, key=jr.key(0)))
            self.lams = physical("lams", lams, problem, "M")
        self.fields, self.domain = tuple(problem.fields), problem.domain
        self.exact = [exact_on_grid(problem, self.axes, lam) for lam in self.lams]
        self.sizes = [_sizes(problem.domain, self.axes, lam) for lam in self.lams]

    def error(self, model: AbstractModel) -> FamilyError:
        """What `family_error` returns."""
        with jax.enable_x64(True):
            model = cast(model, jnp.float64)
            lams = [model.parameters.parameter(lam) for lam in self.lams]

            def values(lam: Array, s: Array) -> Array:
                value = unpack(model.parameters, lam)
                return network_values(model(lam), images(self.domain, s, value))

            # Once for all λ, whatever the model's networks are.
            first = jnp.asarray(next(_blocks(self.axes)))
            evaluate = programs.compiled(values, lams[0], first)
            squares, sizes = list[np.ndarray](), list[np.ndarray]()
            for lam, u, size in zip(lams, self.exact, self.sizes, strict=True):
                found = _on_grid(functools.partial(evaluate, lam), self.axes)
                if (at := found.shape[len(self.axes) :]) != u.shape[len(self.axes) :]:
                    raise ValueError(
                        f"model gives shape {at} at a point, expected one number for "
                        f"each of {', '.join(self.fields)}"
                    )
                rows = (-1, len(self.fields))
                for means, of in ((squares, found - u), (sizes, u)):
                    square = of.reshape(rows) ** 2
                    means.append(np.average(square, axis=0, weights=size))
        return errors(self.lams, self.fields, np.array(squares), np.array(sizes))


def errors(
    lams: Float64[np.ndarray, " M *p"],
    fields: Sequence[str],
    squares: Float64[np.ndarray, "M k"],
    sizes: Float64[np.ndarray, "M k"],
) -> FamilyError:
    """The error from the mean squares of what is wrong, and of the solution."""
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.sqrt(squares / sizes)
    columns = zip(fields, squares.T, relative.T, strict=True)
    return FamilyError.of_fields(
        {name: FamilyError(lams, mse, l2) for name, mse, l2 in columns}
    )


def check_measurable(problem: AbstractPDE) -> None:
    """Checks that a problem has an exact solution.

    Raises:
        ValueError: the problem has no `exact`.
    """
    if not callable(getattr(problem, "exact", None)):
        raise ValueError(
            f"problem = {type(problem).__name__}, expected one with an exact solution: "
            f"a method exact({', '.join(problem.domain.names)}, lam)"
        )


def physical(
    name: str, lams: ArrayLike, problem: AbstractPDE, *axes: str
) -> Float64[np.ndarray, "..."]:
    """Values of λ, of the given shape, and for several parameters one axis for these.

    Raises:
        ValueError: of another shape, not finite, or not positive where the whole range
            is.
    """
    box = problem.parameters
    shape: tuple[str | int, ...] = axes if len(box) == 1 else (*axes, len(box))
    found = checks.numpy_array(name, lams, *shape, finite=True)
    bad = (np.array(box.low) > 0) & ~np.array(box.periodic)
    columns = found[..., None] if len(box) == 1 else found
    if np.any(columns[..., bad] <= 0):
        raise ValueError(f"{name} = {found}, expected positive numbers for {box}")
    return np.ascontiguousarray(found)


def images(
    domain: Box | Mapped, s: Float[Array, "n d"], lam: Float[Array, "*p"]
) -> Float[Array, "n d"]:
    """The points of a domain that belong to n points of its reference box."""
    if isinstance(domain, Box):
        return s
    return jax.vmap(domain.at, in_axes=(0, None))(s, lam)


def _sizes(
    domain: Box | Mapped,
    axes: Sequence[Float[np.ndarray, " _"]],
    lam: Float[ArrayLike, "*p"],
) -> Float64[np.ndarray, " n"] | None:
    """How much of the image each point of a grid stands for; None if all the same."""
    if isinstance(domain, Box):
        return None
    frames = jax.vmap(domain.frame, in_axes=(0, None))
    with jax.enable_x64(True):
        _, jacobian = programs.call(frames, _points(axes), jnp.asarray(lam))
        return np.abs(np.asarray(jnp.linalg.det(jacobian)))


def _points(axes: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "n d"]:
    grid = np.meshgrid(*axes, indexing="ij")
    return np.stack([axis.ravel() for axis in grid], axis=-1)


def exact_on_grid(
    problem: AbstractPDE,
    axes: Sequence[Float[np.ndarray, " _"]],
    lam: Float[ArrayLike, "*p"],
) -> Float64[np.ndarray, "..."]:
    """The exact solution on the grid of these axes, one for each coordinate.

    Of several fields, they are the last axis. The axes are those of the reference box.

    Raises:
        ValueError: `exact` does not return finite numbers that broadcast to the grid.
    """
    shape = tuple(map(len, axes))
    domain = problem.domain
    points = list(np.meshgrid(*axes, indexing="ij", sparse=True))
    lam = np.asarray(lam)
    if not isinstance(domain, Box):
        with jax.enable_x64(True):
            at = functools.partial(images, domain)
            x = np.asarray(programs.call(at, _points(axes), jnp.asarray(lam)))
        points = [column.reshape(shape) for column in x.T]
    lam = float(lam) if lam.ndim == 0 else lam
    name = f"problem.exact({', '.join(problem.domain.names)}, {lam})"
    # In float64 even where `exact` is written in JAX and the caller is in float32.
    with jax.enable_x64(True):
        u = problem.exact(*points, lam)  # type: ignore[attr-defined]
        fields = u if isinstance(u, tuple | list) else (u,)
        if len(fields) != len(problem.fields):
            raise ValueError(
                f"{name} returns {len(fields)} fields, expected {problem.fields}"
            )
        fields = [checks.numpy_array(name, u, "...", finite=True) for u in fields]
    try:
        whole = [np.broadcast_to(u, shape) for u in fields]
    except ValueError:
        shapes = [u.shape for u in fields]
        raise ValueError(f"{name} has shape {shapes}, expected {shape}") from None
    return whole[0] if len(whole) == 1 else np.stack(whole, axis=-1)


@checked
def on_grid(
    u: Callable[[Array], Array], *axes: Finite[Float64[ArrayLike, " _"]]
) -> Float[np.ndarray, "..."]:
    """A network on the grid of the given axes, in the network's own precision.

    A `MainNet` computes in the precision of its weights; any other function gets points
    in JAX's. It is read anew at every call, and evaluated a few points at a time.

    Args:
        u: a function of one point of shape (d,).
        axes: d lists of numbers, one for each coordinate.

    Returns:
        u at every combination, with one axis for each coordinate, and one more for k
        outputs.

    Raises:
        ValueError: no axes.

    >>> on_grid(lambda tx: tx[0] * tx[1], np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    array([[0., 0.],
           [2., 3.]], dtype=float32)
    """
    if not axes:
        raise ValueError("axes = (), expected one for each coordinate")
    grid = list(axes)
    if isinstance(u, MainNet):
        with precision(u.dtype):
            return _on_grid(functools.partial(network_values, u), grid)
    first = jnp.asarray(next(_blocks(grid)))
    return _on_grid(programs.compiled(jax.vmap(u), first), grid)


# The function of a grid's points takes memory for these only.
_AT_ONCE = 2**15


def _blocks(grid: list[np.ndarray]) -> Iterator[np.ndarray]:
    """All points of a grid, in blocks of one size; the last repeats its last point."""
    shape = tuple(map(len, grid))
    n = math.prod(shape)
    size = -(-n // -(-n // _AT_ONCE))
    for begin in range(0, n, size):
        places = np.minimum(np.arange(begin, begin + size), n - 1)
        index = np.unravel_index(places, shape)
        columns = [axis[i] for axis, i in zip(grid, index, strict=True)]
        yield np.stack(columns, axis=-1)


def _on_grid(
    values: Callable[[Array], Array], grid: list[np.ndarray]
) -> Float[np.ndarray, "..."]:
    shape = tuple(map(len, grid))
    found, at = np.empty(0), 0
    for points in _blocks(grid):
        u = values(jnp.asarray(points, jnp.result_type(float)))
        found = found if at else np.empty((math.prod(shape), *u.shape[1:]), u.dtype)
        found[at : at + len(u)] = u[: len(found) - at]
        at += len(u)
    return found.reshape(*shape, *found.shape[1:])
