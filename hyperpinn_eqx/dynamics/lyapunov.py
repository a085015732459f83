"""Lyapunov exponents: how a system behaves where no forecast can follow it."""

from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .. import _arguments as checks
from ..networks.model import cast
from .integrate import (
    Family,
    Program,
    field_of,
    outcomes,
    reasons,
    solve,
    starts,
    times,
)

_MAX_STEPS = 1_000_000


class LongRun(eqx.Module):
    """One long trajectory for each of M values of λ, and its tangent dynamics.

    Attributes:
        lam: values of λ, shape (M, p).
        states: T states of each, from the start on, shape (M, T, d), T at least 3.
        dt: the time between states.
        growth: ∫ wᵀJw dt up to each state, shape (M, T), where the unit tangent w
            turns towards the direction that grows fastest.
        contraction: ∫ tr J dt up to each state, shape (M, T).
        outcome: how each run ended, shape (M,), as in `Trajectories`.

    Raises:
        ValueError: arrays of other shapes, λ or a finished run not finite, or Δt not
            positive.
    """

    lam: Float[Array, "M p"]
    states: Float[np.ndarray, "M T d"]
    dt: float = eqx.field(static=True)
    growth: Float[np.ndarray, "M T"]
    contraction: Float[np.ndarray, "M T"]
    outcome: Int[np.ndarray, " M"]

    def __init__(
        self,
        lam: Float[ArrayLike, "M p"],
        states: Float[ArrayLike, "M T d"],
        dt: float,
        growth: Float[ArrayLike, "M T"],
        contraction: Float[ArrayLike, "M T"],
        outcome: Int[ArrayLike, " M"] | Bool[ArrayLike, " M"],
    ):
        self.lam = checks.array("lam", lam, "M", "p", finite=True)
        self.states = checks.numpy_array("states", states, "M", "T", "d")
        self.growth = checks.numpy_array("growth", growth, "M", "T")
        self.contraction = checks.numpy_array("contraction", contraction, "M", "T")
        m, n = self.states.shape[:2]
        same = self.growth.shape == self.contraction.shape == (m, n)
        if not same or len(self.lam) != m or n < 3:
            arrays = (self.lam, self.states, self.growth, self.contraction)
            raise ValueError(
                "lam, states, growth and contraction have shapes "
                f"{', '.join(str(a.shape) for a in arrays)}, expected (M, p), "
                "(M, T, d), (M, T) and (M, T), T at least 3"
            )
        self.dt = checks.positive("dt", dt)
        self.outcome = np.asarray(outcomes(outcome, self.states))

    @property
    def finished(self) -> Bool[np.ndarray, " M"]:
        """Whether each run reached its end."""
        return self.outcome == 0

    def reasons(self) -> np.ndarray:
        """Why each run ended too early, shape (M,); see `Trajectories.reasons`."""
        return reasons(self.outcome, self.states, self.dt, _MAX_STEPS)

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


def long_run(
    family: Family,
    lam: Float[ArrayLike, "M p"],
    start: Float[ArrayLike, "M d"],
    *,
    duration: float = 200.0,
    dt: float = 0.05,
    rtol: float = 1e-6,
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
        ValueError: shapes that do not fit, λ or a state that is not finite, or a time
            or tolerance that makes no sense.
        TypeError: the family is no function.
    """
    t, dt, rtol = times(duration, dt, rtol, 2)
    with jax.enable_x64(True):
        family = cast(family, jnp.float64)
        found_lam, found_start = starts(family, lam, start, "M", "d")
        lam = jnp.asarray(found_lam)
        start = jnp.asarray(found_start)
        field = Program(_linearised, family, lam[0], start[0])
        states, growth, contraction, outcome = field.run(
            _long_run, lam, start, jnp.asarray(t), jnp.asarray(rtol)
        )
        return LongRun(lam, states, dt, growth, contraction, outcome)


def _linearised(family: Family) -> Callable[[Array, Array], tuple[Array, Array]]:
    """The Jacobian of a field, and its slope."""

    def jacobian(lam: Array, x: Array) -> tuple[Array, Array]:
        field = field_of(family, lam)
        return jax.jacfwd(lambda x: (field(x),) * 2, has_aux=True)(x)

    return jacobian


def _long_run(
    field: Program, lam: Array, start: Array, t: Array, rtol: Array
) -> tuple[Array, Array, Array, Array]:
    def one(lam: Array, start: Array) -> tuple[Array, Array, Array, Array]:
        def slope(y: tuple) -> tuple:
            x, w = y[:2]
            jacobian, f = field(lam, x)
            turned = jacobian @ w
            rate = w @ turned / (w @ w)
            return f, turned - rate * w, rate, jnp.trace(jacobian)

        zero = jnp.zeros(())
        # A direction that is not invariant for any λ.
        tangent = jnp.ones(len(start)) / len(start) ** 0.5
        (x, _, growth, contraction), outcome = solve(
            slope,
            (start, tangent, zero, zero),
            t,
            rtol,
            solver=dfx.Dopri5(),
            max_steps=_MAX_STEPS,
        )
        return x, growth, contraction, outcome

    return jax.vmap(one)(lam, start)
