"""How good a learned vector field is: its error, and how far its forecasts reach."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .. import _arguments as checks
from .. import _programs as programs
from .._arguments import ArrayLike, Count, Finite, Positive, checked
from ..networks.main import in_float64
from ..networks.model import cast
from .integrate import Family, check_family, field_of
from .trajectories import Trajectories


@in_float64
@checked
def field_error(
    family: Family, exact: Family, trajectories: Trajectories, *, every: Count = 10
) -> tuple[float, Float[np.ndarray, " M"]]:
    """The relative L2 error of a learned field on states that the true one visits.

    Args:
        family: the learned fields.
        exact: the true ones.
        trajectories: true trajectories, whose states and λ are the test points.
        every: uses every so-many-th state.

    Returns:
        `√(Σ |f̂ - f|² / Σ |f|²)` over all states of all λ, and for each λ alone, shape
        (M,). Where a system rests at a fixed point f is zero, and its own relative
        error means little, or is infinite or NaN; in the pooled one such states weigh
        next to nothing. A learned field that is not finite has the error NaN.

    Raises:
        ValueError: a state used is not finite, or a family makes no field on such.
    """
    trajectories = cast(trajectories, jnp.float64)
    lam, states = trajectories.lam, trajectories.states[:, :, ::every]
    checks.array("trajectories.states", states, "M", "I", "T", "d", finite=True)
    family, exact = cast(family, jnp.float64), cast(exact, jnp.float64)
    for name, one in (("family", family), ("exact", exact)):
        check_family(name, one, lam[0], "trajectories", states[0, 0, 0])
    found = programs.call(_squares, family, exact, lam, states)
    wrong, size = map(np.asarray, found)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(wrong.sum() / size.sum())), np.sqrt(wrong / size)


def _squares(
    family: Family, exact: Family, lam: Array, states: Array
) -> tuple[Array, Array]:
    def one(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        lam, states = pair
        points = states.reshape(-1, states.shape[-1])
        f = jax.vmap(field_of(exact, lam))(points)
        found = jax.vmap(field_of(family, lam))(points)
        return jnp.sum((found - f) ** 2), jnp.sum(f**2)

    return jax.lax.map(one, (lam, states))


@checked
def trajectory_errors(
    found: Trajectories, true: Trajectories
) -> Float[np.ndarray, "M I"]:
    """The mean squared error per component of each trajectory, the paper's measure.

    A trajectory whose solver gave up has the error NaN, so that no mean can hide it.

    Raises:
        ValueError: the two do not have the same shape, time step and λ, or a true one
            is unfinished.
    """
    gap = _gap(found, true)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(found.finished, np.mean(gap**2, (2, 3)), np.nan)


@checked
def valid_prediction_time(
    found: Trajectories,
    true: Trajectories,
    scale: Finite[Float64[ArrayLike, " M"]],
    *,
    threshold: Positive = 0.4,
) -> Float[np.ndarray, "M I"]:
    """The time until a forecast is wrong by a fraction of the attractor's size.

    Args:
        found: forecasts.
        true: the truth.
        scale: the size of the attractor for each λ: the root mean square of the
            distance to its mean, shape (M,).
        threshold: the fraction.

    Returns:
        Times, shape (M, I), at most the whole duration. Multiply them by the largest
        Lyapunov exponent for the usual unit, Lyapunov times.

    Raises:
        ValueError: the two do not have the same shape, time step and λ, a true one is
            unfinished, or there is not one positive scale for each λ.
    """
    gap = _gap(found, true)
    if len(scale) != len(gap) or np.any(scale <= 0):
        raise ValueError(f"scale = {scale}, expected {len(gap)} positive numbers")
    reach = threshold * scale[:, None, None]
    with np.errstate(over="ignore"):
        # The right way round: NaN is wrong.
        wrong = ~(np.linalg.norm(gap, axis=-1) <= reach)
    first = np.where(wrong.any(-1), wrong.argmax(-1), wrong.shape[-1] - 1)
    return first * true.dt


def _gap(found: Trajectories, true: Trajectories) -> Float[np.ndarray, "M I T d"]:
    if found.states.shape != true.states.shape or found.dt != true.dt:
        raise ValueError(
            f"found has shape {found.states.shape} and dt = {found.dt}, expected "
            f"{true.states.shape} and {true.dt} as true has"
        )
    if not np.allclose(found.lam, true.lam, rtol=1e-6):
        raise ValueError(f"found.lam = {found.lam}, expected that of true: {true.lam}")
    true.check_finished("true")
    with np.errstate(invalid="ignore"):
        return np.asarray(found.states) - np.asarray(true.states)
