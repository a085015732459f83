"""How good a model is: errors over a family, against the exact solution."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .jets import jets
from .model import AbstractModel, cast
from .problems import AbstractPDE


class FamilyError(eqx.Module):
    """The error of a model over a family of equations.

    Attributes:
        lam: the values of λ, shape (M,).
        mse: mean squared error over the space-time grid for each λ, shape (M,).
        relative_l2: relative L2 error for each λ, shape (M,).
    """

    lam: Float[np.ndarray, " M"]
    mse: Float[np.ndarray, " M"]
    relative_l2: Float[np.ndarray, " M"]

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
    lams: Float[Array | np.ndarray, " M"] | None = None,
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
        ValueError: fewer than two points along an axis, or a problem without an
            `exact`, with other coordinates, or with several parameters.
    """
    for name, n in (("n_lam", n_lam), ("n_t", n_t), ("n_x", n_x)):
        if n < 2:
            raise ValueError(f"{name} = {n}, expected at least 2")
    if lams is None:
        range_ = problem.parameters
        lams = np.linspace(range_.low[0], range_.high[0], n_lam)
    lams = np.array(lams, dtype=np.float64)
    t, x, exact = _evaluation_set(problem, tuple(lams.tolist()), n_t, n_x)
    mse, relative = [], []
    # Whatever the caller's precision: an error of 1e-7 is not measured in float32.
    with jax.enable_x64(True):
        exact_model = cast(model, jnp.float64)
        for lam, u in zip(lams, exact, strict=True):
            e = on_grid(exact_model(lam), t, x) - u
            mse.append(np.mean(e**2))
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


def exact_on_grid(
    problem: AbstractPDE,
    t: Float[np.ndarray, " m"],
    x: Float[np.ndarray, " n"],
    lam: float,
) -> Float64[np.ndarray, "m n"]:
    """The exact solution at every pair of t and x.

    Raises:
        ValueError: the problem has no `exact`, other coordinates than t and one more,
            or several parameters.
    """
    name, exact = type(problem).__name__, getattr(problem, "exact", None)
    if exact is None:
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
    # In float64 even where `exact` is written in JAX and the caller is in float32.
    with jax.enable_x64(True):
        u = np.asarray(exact(t[:, None], x[None], lam), dtype=np.float64)
    return np.broadcast_to(u, (len(t), len(x)))


def on_grid(
    u: Callable[[Array], Array], t: Float[np.ndarray, " m"], x: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "m n"]:
    """A network at every pair of t and x, in the network's own precision.

    >>> on_grid(lambda tx: tx[0] * tx[1], np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    array([[0., 0.],
           [2., 3.]], dtype=float32)
    """
    points = np.stack(np.meshgrid(t, x, indexing="ij"), axis=-1).reshape(-1, 2)
    values = _values(u, jnp.asarray(points, jnp.result_type(float)))
    return np.asarray(values).reshape(len(t), len(x))


@eqx.filter_jit
def _values(u: Callable[[Array], Array], points: Array) -> Array:
    return jets(u, points, ()).value
