"""Lyapunov exponents: how a system behaves where no forecast can follow it."""

from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64

from .._arguments import ArrayLike, Finite, Positive, Tolerance, checked
from ..networks.main import in_float64
from ..networks.model import cast
from .integrate import (
    Family,
    Program,
    check_ends,
    check_family,
    ends,
    field_of,
    reasons,
    solve,
    times,
)

_MAX_STEPS = 1_000_000


@checked
class LongRun(eqx.Module):
    """One long trajectory for each of M values of λ, and its tangent dynamics.

    Attributes:
        lam: values of λ, shape (M, p).
        states: T states of each, from the start on, shape (M, T, d), T at least 3.
        dt: the time between states.
        growth: ∫ wᵀJw dt up to each state, shape (M, T), where the unit tangent w
            turns towards the direction that grows fastest.
        contraction: ∫ tr J dt up to each state, shape (M, T).
        result: how each run ended, shape (M,), as in `Trajectories`.

    Raises:
        ValueError: a run has less than three states, or finished and is not finite.
    """

    lam: Finite[Float[Array, "M p"]]
    states: Float64[np.ndarray, "M T d"]
    dt: Positive = eqx.field(static=True)
    growth: Float64[np.ndarray, "M T"]
    contraction: Float64[np.ndarray, "M T"]
    result: dfx.RESULTS = eqx.field(converter=ends)

    def __check_init__(self) -> None:
        if self.states.shape[1] < 3:
            raise ValueError(
                f"states has shape {self.states.shape}, expected T of at least 3"
            )
        check_ends(self.finished, self.states)

    @property
    def finished(self) -> Bool[np.ndarray, " M"]:
        """Whether each run reached its end."""
        return np.asarray(self.result == dfx.RESULTS.successful)

    def reasons(self) -> np.ndarray:
        """Why each run ended too early, shape (M,); see `Trajectories.reasons`."""
        return reasons(self.result, self.states, self.dt, _MAX_STEPS)

    @property
    def half(self) -> int:
        """The index from which a run counts as having forgotten its start."""
        return self.states.shape[1] // 2

    @property
    def lyapunov(self) -> Float[np.ndarray, " M"]:
        """The largest Lyapunov exponent over the second half, per unit of time."""
        return self._rate(self.growth)

    @property
    def lyapunov_sum(self) -> Float[np.ndarray, " M"]:
        """The sum of all exponents, the mean divergence; exact, it is -(σ + 1 + β)."""
        return self._rate(self.contraction)

    @property
    def size(self) -> Float[np.ndarray, " M"]:
        """The attractor's size, the root mean square of the distance to its mean."""
        late = self.states[:, self.half :]
        # One that failed has the size NaN or infinity.
        with np.errstate(invalid="ignore", over="ignore"):
            return np.sqrt(np.sum(np.var(late, axis=1), axis=-1))

    def _rate(self, integral: np.ndarray) -> np.ndarray:
        span = (integral.shape[1] - 1 - self.half) * self.dt
        with np.errstate(invalid="ignore"):  # a run that failed has the rate NaN
            return (integral[:, -1] - integral[:, self.half]) / span


@in_float64
@checked
def long_run(
    family: Family,
    lam: Finite[Float64[ArrayLike, "M p"]],
    start: Finite[Float64[ArrayLike, "M d"]],
    *,
    duration: Positive = 200.0,
    dt: Positive = 0.05,
    rtol: Tolerance = 1e-6,
) -> LongRun:
    """Follows a system and one tangent vector for a long time, in float64.

    The tangent obeys `w' = Jw - (wᵀJw / |w|²) w`, which keeps its length without ever
    rescaling it (Benettin et al. 1980, made continuous).

    Args:
        family: the exact family or a trained one.
        lam: M values of λ, shape (M, p).
        start: an initial state for each, shape (M, d).
        duration: how long, at least twice dt.
        dt: the time between saved states.
        rtol: relative and absolute tolerance of a step, below 1.

    Returns:
        A `LongRun`. A run whose field blows up, is not defined, or needs more than
        1 000 000 steps ends early and leaves the others alone; `reasons` tells why.

    Raises:
        ValueError: the family makes no field on such states.
    """
    t = times(duration, dt, 2)
    family = cast(family, jnp.float64)
    check_family("family", family, lam[0], "start", start[0])
    lam, start = jnp.asarray(lam), jnp.asarray(start)
    field = Program(_linearised, family, lam[0], start[0])
    states, growth, contraction, result = field.run(
        _long_run, lam, start, jnp.asarray(t), jnp.asarray(rtol)
    )
    return LongRun(lam, states, dt, growth, contraction, result)


def _linearised(family: Family) -> Callable[[Array, Array], tuple[Array, Array]]:
    """The Jacobian of a field, and its slope."""

    def jacobian(lam: Array, x: Array) -> tuple[Array, Array]:
        field = field_of(family, lam)
        return jax.jacfwd(lambda x: (field(x),) * 2, has_aux=True)(x)

    return jacobian


def _long_run(
    field: Program, lam: Array, start: Array, t: Array, rtol: Array
) -> tuple[Array, Array, Array, dfx.RESULTS]:
    def one(lam: Array, start: Array) -> tuple[Array, Array, Array, dfx.RESULTS]:
        def slope(y: tuple) -> tuple:
            x, w = y[:2]
            jacobian, f = field(lam, x)
            turned = jacobian @ w
            rate = w @ turned / (w @ w)
            return f, turned - rate * w, rate, jnp.trace(jacobian)

        zero = jnp.zeros(())
        # A direction that is not invariant for any λ.
        tangent = jnp.ones(len(start)) / len(start) ** 0.5
        (x, _, growth, contraction), result = solve(
            slope,
            (start, tangent, zero, zero),
            t,
            rtol,
            solver=dfx.Dopri5(),
            max_steps=_MAX_STEPS,
        )
        return x, growth, contraction, result

    return jax.vmap(one)(lam, start)
