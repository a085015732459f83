"""How good a learned vector field is: its error, and how far its forecasts reach."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .model import cast
from .trajectories import Family, Trajectories


def field_error(
    family: Family, exact: Family, trajectories: Trajectories, *, every: int = 10
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
        error means little; in the pooled one such states weigh next to nothing.

    Raises:
        ValueError: `every` below 1.
    """
    if every < 1:
        raise ValueError(f"every = {every}, expected at least 1")
    with jax.enable_x64(True):
        trajectories = cast(trajectories, jnp.float64)
        states = trajectories.states[:, :, ::every]
        sums = _squares(cast(family, jnp.float64), exact, trajectories.lam, states)
    wrong, size = np.asarray(sums[0]), np.asarray(sums[1])
    return float(np.sqrt(wrong.sum() / size.sum())), np.sqrt(wrong / size)


@eqx.filter_jit
def _squares(
    family: Family, exact: Family, lam: Array, states: Array
) -> tuple[Array, Array]:
    def one(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        lam, states = pair
        points = states.reshape(-1, states.shape[-1])
        f = jax.vmap(exact(lam))(points)
        return jnp.sum((jax.vmap(family(lam))(points) - f) ** 2), jnp.sum(f**2)

    return jax.lax.map(one, (lam, states))


def trajectory_errors(
    found: Trajectories, true: Trajectories
) -> Float[np.ndarray, "M I"]:
    """The mean squared error per component of each trajectory, the paper's measure.

    A trajectory whose solver gave up has the error NaN, so that no mean can hide it.

    Raises:
        ValueError: the two do not have the same shape and time step.
    """
    _same(found, true)
    error = np.mean((np.asarray(found.states) - np.asarray(true.states)) ** 2, (2, 3))
    return np.where(np.asarray(found.finished), error, np.nan)


def valid_prediction_time(
    found: Trajectories,
    true: Trajectories,
    scale: Float[np.ndarray, " M"],
    *,
    threshold: float = 0.4,
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
        ValueError: the two do not have the same shape and time step, there is not one
            scale for each λ, or a scale or the threshold is not positive.
    """
    _same(found, true)
    scale = np.asarray(scale)
    if scale.shape != true.lam.shape[:1]:
        raise ValueError(
            f"scale has shape {scale.shape}, expected {true.lam.shape[:1]}: one for "
            "each λ"
        )
    if not (np.all(scale > 0) and threshold > 0):
        raise ValueError(
            f"scale = {scale} and threshold = {threshold}, expected positive numbers"
        )
    gap = np.linalg.norm(np.asarray(found.states) - np.asarray(true.states), axis=-1)
    # The right way round: NaN is wrong.
    wrong = ~(gap <= threshold * scale[:, None, None])
    first = np.where(wrong.any(-1), wrong.argmax(-1), wrong.shape[-1] - 1)
    return first * true.dt


def _same(found: Trajectories, true: Trajectories) -> None:
    if found.states.shape != true.states.shape or found.dt != true.dt:
        raise ValueError(
            f"found has shape {found.states.shape} and dt = {found.dt}, expected "
            f"{true.states.shape} and {true.dt}"
        )
