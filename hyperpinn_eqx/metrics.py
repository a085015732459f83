"""How good a model is: errors over a family, against the exact solution."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Float64

from . import checks
from .jets import jets
from .model import AbstractModel, cast
from .problems import AbstractPDE


class FamilyError(eqx.Module):
    """The error of a model over a family of equations.

    Attributes:
        lam: the values of λ, shape (M,).
        mse: mean squared error over the space-time grid for each λ, shape (M,); NaN
            where the model is not finite.
        relative_l2: relative L2 error for each λ, shape (M,); infinite or NaN where the
            solution is zero.

    Raises:
        ValueError: arrays of other shapes, or a λ that is not finite.
    """

    lam: Float[np.ndarray, " M"]
    mse: Float[np.ndarray, " M"]
    relative_l2: Float[np.ndarray, " M"]

    def __init__(
        self,
        lam: Float[ArrayLike, " M"],
        mse: Float[ArrayLike, " M"],
        relative_l2: Float[ArrayLike, " M"],
    ):
        self.lam = checks.numpy_array("lam", lam, "M", finite=True)
        self.mse = checks.numpy_array("mse", mse, "M")
        self.relative_l2 = checks.numpy_array("relative_l2", relative_l2, "M")
        if not self.lam.size == self.mse.size == self.relative_l2.size:
            raise ValueError(
                f"lam, mse and relative_l2 hold {self.lam.size}, {self.mse.size} and "
                f"{self.relative_l2.size} values, expected as many"
            )

    @property
    def mean(self) -> float:
        """The mean squared error over the whole family, the paper's measure."""
        return float(np.mean(self.mse))


def family_error(
    model: AbstractModel,
    problem: AbstractPDE,
    *,
    n_lam: int = 64,
    n_t: int = 101,
    n_x: int = 256,
    lams: Float[ArrayLike, " M"] | None = None,
) -> FamilyError:
    """The error on equispaced λ × equispaced t × equispaced x, in float64.

    The defaults are the evaluation set of every table in the book.

    Args:
        model: a HyperPINN or a baseline.
        problem: a family over (t, x) with one parameter and an `exact(t, x, lam)`.
        n_lam: values of λ, equispaced in physical units, both ends included.
        n_t: times.
        n_x: positions.
        lams: values of λ to take instead, such as some that no training saw.

    Returns:
        A `FamilyError` with the errors of each λ.

    Raises:
        ValueError: fewer than two points along an axis, a λ that makes no sense, a
            model that does not give one number at each point, or a problem without an
            `exact`, with other coordinates, or with several parameters.
        TypeError: no model, or no problem.
    """
    checks.instance("model", model, AbstractModel)
    check_measurable(problem)
    n_lam, n_t = checks.count("n_lam", n_lam, 2), checks.count("n_t", n_t, 2)
    n_x = checks.count("n_x", n_x, 2)
    if lams is None:
        range_ = problem.parameters
        lams = np.linspace(range_.low[0], range_.high[0], n_lam)
    lams = physical("lams", lams, problem, "M")
    # A problem that holds arrays has no hash.
    cached = not jax.tree.leaves(problem)
    exact_set = _evaluation_set if cached else _evaluation_set.__wrapped__
    t, x, exact = exact_set(problem, tuple(lams.tolist()), n_t, n_x)
    mse, relative = [], []
    # Whatever the caller's precision: an error of 1e-7 is not measured in float32.
    with jax.enable_x64(True):
        exact_model = cast(model, jnp.float64)
        for lam, u in zip(lams, exact, strict=True):
            e = on_grid(exact_model(lam), t, x) - u
            mse.append(np.mean(e**2))
            with np.errstate(divide="ignore", invalid="ignore"):
                relative.append(np.sqrt(np.sum(e**2) / np.sum(u**2)))
    return FamilyError(lams, np.array(mse), np.array(relative))


# A training that watches its error would spend most of its time here.
@functools.lru_cache(4)
def _evaluation_set(
    problem: AbstractPDE, lams: tuple[float, ...], n_t: int, n_x: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """t, x, and the exact solution for each λ."""
    box = problem.domain
    t = np.linspace(box.low[0], box.high[0], n_t)
    x = np.linspace(box.low[-1], box.high[-1], n_x)
    return t, x, [exact_on_grid(problem, t, x, lam) for lam in lams]


def check_measurable(problem: AbstractPDE) -> None:
    """Checks that a problem has an exact solution on a grid over t and x.

    Raises:
        ValueError: the problem has no `exact`, other coordinates than t and one more,
            or several parameters.
        TypeError: it is no `AbstractPDE`.
    """
    checks.instance("problem", problem, AbstractPDE)
    name = type(problem).__name__
    if not callable(getattr(problem, "exact", None)):
        raise ValueError(
            f"problem = {name}, expected one with an exact solution: a method "
            "exact(t, x, lam)"
        )
    if len(problem.domain) != 2 or problem.domain.names[0] != "t":
        raise ValueError(
            f"problem = {name} on {problem.domain}, expected t and one more coordinate"
        )
    if len(problem.parameters) != 1:
        raise ValueError(
            f"problem = {name} with {problem.parameters}, expected one parameter"
        )


def physical(
    name: str, lams: ArrayLike, problem: AbstractPDE, *axes: str
) -> Float64[np.ndarray, "..."]:
    """Values of the one parameter of a problem, of the given shape.

    Raises:
        ValueError: of another shape, not finite, or not positive where the whole range
            is.
    """
    found = checks.numpy_array(name, lams, *axes, finite=True)
    if problem.parameters.low[0] > 0 and np.any(found <= 0):
        raise ValueError(
            f"{name} = {found}, expected positive numbers for {problem.parameters}"
        )
    return found


def exact_on_grid(
    problem: AbstractPDE,
    t: Float[np.ndarray, " m"],
    x: Float[np.ndarray, " n"],
    lam: float,
) -> Float64[np.ndarray, "m n"]:
    """The exact solution at every pair of t and x, of a problem with one.

    Raises:
        ValueError: `exact` does not return finite numbers that broadcast to the grid.
    """
    shape, name = (len(t), len(x)), f"problem.exact(t, x, {lam:g})"
    # In float64 even where `exact` is written in JAX and the caller is in float32.
    with jax.enable_x64(True):
        u = problem.exact(t[:, None], x[None], lam)  # type: ignore[attr-defined]
        u = checks.numpy_array(name, u, "...", finite=True)
    try:
        return np.broadcast_to(u, shape)
    except ValueError:
        raise ValueError(f"{name} has shape {u.shape}, expected {shape}") from None


def on_grid(
    u: Callable[[Array], Array], t: Float[ArrayLike, " m"], x: Float[ArrayLike, " n"]
) -> Float[np.ndarray, "m n"]:
    """A network at every pair of t and x, in the network's own precision.

    Raises:
        ValueError: t or x is no list of finite numbers, or u does not give one number
            at each point.
        TypeError: u is no function.

    >>> on_grid(lambda tx: tx[0] * tx[1], np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    array([[0., 0.],
           [2., 3.]], dtype=float32)
    """
    checks.function("u", u)
    t = checks.numpy_array("t", t, "m", finite=True)
    x = checks.numpy_array("x", x, "n", finite=True)
    points = np.stack(np.meshgrid(t, x, indexing="ij"), axis=-1).reshape(-1, 2)
    values = _values(u, jnp.asarray(points, jnp.result_type(float)))
    if values.shape != (len(points),):
        raise ValueError(
            f"u gives shape {values.shape[1:]} at a point, expected one number"
        )
    return np.asarray(values).reshape(len(t), len(x))


@eqx.filter_jit
def _values(u: Callable[[Array], Array], points: Array) -> Array:
    return jets(u, points, ()).value
