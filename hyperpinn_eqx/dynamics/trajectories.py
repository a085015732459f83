"""Trajectories of vector fields, exact or learned, by Diffrax."""

import functools
from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, PRNGKeyArray

from .._arguments import (
    ArrayLike,
    Count,
    Finite,
    NonNegative,
    Positive,
    Tolerance,
    checked,
)
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

_MAX_STEPS = 200_000


@checked
class Trajectories(eqx.Module):
    """States of a family of systems at equispaced times.

    Attributes:
        lam: M values of λ, shape (M, p).
        states: I trajectories of T states for each, shape (M, I, T, d). One that did
            not reach its end holds NaN or infinities from where the solver gave up.
        dt: the time Δt between states.
        result: how each trajectory ended, as Diffrax says it, shape (M, I). In its
            place may be given whether each of them finished, as booleans.

    Raises:
        ValueError: a trajectory that finished is not finite.
    """

    lam: Finite[Float[Array, "M p"]]
    states: Float[Array, "M I T d"]
    dt: Positive = eqx.field(static=True)
    result: dfx.RESULTS = eqx.field(converter=ends)

    def __check_init__(self) -> None:
        check_ends(self.finished, self.states)

    @property
    def finished(self) -> Bool[Array, "M I"]:
        """Whether each trajectory reached its end."""
        return jnp.asarray(self.result == dfx.RESULTS.successful)

    def reasons(self) -> np.ndarray:
        """Why each trajectory ended too early, as words of shape (M, I).

        A word is empty for a trajectory that finished. The others also tell the time of
        their last state.
        """
        return reasons(self.result, self.states, self.dt, _MAX_STEPS)

    def check_finished(self, name: str) -> None:
        """Checks that all trajectories finished, unless JAX traces them.

        Raises:
            ValueError: one did not; tells which one, and why.
        """
        if isinstance(self.finished, jax.core.Tracer):
            return
        bad = np.argwhere(~np.asarray(self.finished))
        if len(bad):
            at = tuple(bad[0].tolist())
            raise ValueError(
                f"{name} holds unfinished trajectories, expected finished ones; "
                f"{len(bad)} did not finish, the first at {at}: {self.reasons()[at]}"
            )

    @property
    def t(self) -> Float[np.ndarray, " T"]:
        """The times of the states."""
        return self.dt * np.arange(self.states.shape[2])

    @checked
    def every(self, n: Count) -> "Trajectories":
        """The same trajectories seen n times more rarely."""
        return Trajectories(self.lam, self.states[:, :, ::n], n * self.dt, self.result)

    @checked
    def windows(
        self, length: Count, n: Count, *, early: NonNegative = 2.0, key: PRNGKeyArray
    ) -> Float[Array, "M n length d"]:
        """Random runs of consecutive states, n for each λ.

        Half of them begin anywhere, half within the first seconds: later on a system
        stays on its attractor, and says nothing about the field around it.

        Args:
            length: states in a window.
            n: windows for each λ.
            early: how long the transient counts as early.
            key: a JAX random key.

        Raises:
            ValueError: the trajectories are shorter than a window or not all finished.
        """
        m, i, t, _ = self.states.shape
        if length > t:
            raise ValueError(
                f"length = {length}, expected 1, ..., {t}: trajectories have {t} states"
            )
        self.check_finished("data")
        which_key, when_key = jr.split(key)
        last = t - length + 1
        soon = max(1, round(min(last, early / self.dt)))
        bound = jnp.where(jnp.arange(n) < n // 2, soon, last)
        which = jr.randint(which_key, (m, n), 0, i)
        when = jr.randint(when_key, (m, n), 0, bound[None])
        index = when[:, :, None] + jnp.arange(length)[None, None]
        rows = jnp.arange(m)[:, None, None]
        return self.states[rows, which[:, :, None], index]


# In float32 neither the tolerance nor a chaotic trajectory means much.
@in_float64
@checked
def simulate(
    family: Family,
    lam: Finite[Float64[ArrayLike, "M p"]],
    start: Finite[Float64[ArrayLike, "M I d"]],
    *,
    duration: Positive = 25.0,
    dt: Positive = 0.01,
    rtol: Tolerance = 1e-9,
    solver: dfx.AbstractAdaptiveSolver | None = None,
) -> Trajectories:
    """Trajectories by an adaptive Runge-Kutta method, in float64.

    The defaults are the paper's (A.6): 25 s, Δt = 0.01, Runge-Kutta 4(5).

    Args:
        family: the exact family, a trained one, or any function from λ to a field.
        lam: M values of λ, shape (M, p).
        start: I initial states for each, shape (M, I, d).
        duration: how long to integrate.
        dt: the time between saved states.
        rtol: relative and absolute tolerance of a step, below 1.
        solver: a Diffrax solver that estimates its error; Dormand and Prince's 5(4) by
            default.

    Returns:
        `Trajectories`. One whose field blows up, is not defined, or needs more than
        200 000 steps ends early and leaves the others alone; `reasons` tells why.

    Raises:
        ValueError: the family makes no field on such states, or no such solver.
    """
    t = times(duration, dt, 1)
    solver = dfx.Dopri5() if solver is None else solver
    if solver.term_structure is not dfx.AbstractTerm:
        raise ValueError(
            f"solver = {type(solver).__name__}, expected one for a single vector field"
        )
    family = cast(family, jnp.float64)
    check_family("family", family, lam[0], "start", start[0, 0])
    lam, start = jnp.asarray(lam), jnp.asarray(start)
    field = Program(_field, family, lam[0], start[0, 0])
    states, result = field.run(
        _simulate,
        lam,
        start,
        jnp.asarray(t),
        # As an array: a Python float would be compiled in.
        jnp.asarray(rtol),
        solver,
    )
    return Trajectories(lam, states, dt, result)


def _field(family: Family) -> Callable[[Array, Array], Array]:
    return lambda lam, x: field_of(family, lam)(x)


def _simulate(
    field: Program,
    lam: Array,
    start: Array,
    t: Array,
    rtol: Array,
    solver: dfx.AbstractAdaptiveSolver,
) -> tuple[Array, dfx.RESULTS]:
    def one(lam: Array, start: Array) -> tuple[Array, dfx.RESULTS]:
        slope = functools.partial(field, lam)
        return solve(slope, start, t, rtol, solver=solver, max_steps=_MAX_STEPS)

    # All trajectories in one batch: the loop takes as many steps as the slowest.
    every = jax.vmap(jax.vmap(one, (None, 0)))
    if start.shape[1] == 1:
        return every(lam, start)
    # By λ, when each brings many: their stiffness is alike.
    return jax.lax.map(lambda pair: jax.vmap(one, (None, 0))(*pair), (lam, start))
