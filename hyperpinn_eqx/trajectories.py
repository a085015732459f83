"""Trajectories of vector fields, exact or learned, by Diffrax."""

from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from .model import cast
from .multistep import Field

# From λ, shape (p,), to its vector field: a problem or a model.
Family = Callable[[Array], Field]


class Trajectories(eqx.Module):
    """States of a family of systems at equispaced times.

    Attributes:
        lam: M values of λ, shape (M, p).
        states: I trajectories of T states for each, shape (M, I, T, d).
        dt: the time Δt between states.
        finished: whether each trajectory reached its end, shape (M, I); one that did
            not holds NaN or infinities from where the solver gave up.
    """

    lam: Float[Array, "M p"]
    states: Float[Array, "M I T d"]
    dt: float = eqx.field(static=True)
    finished: Bool[Array, "M I"]

    @property
    def t(self) -> Float[np.ndarray, " T"]:
        """The times of the states."""
        return self.dt * np.arange(self.states.shape[2])

    def every(self, n: int) -> "Trajectories":
        """The same trajectories seen n times more rarely."""
        return Trajectories(
            self.lam, self.states[:, :, ::n], n * self.dt, self.finished
        )

    def windows(
        self, length: int, n: int, *, early: float = 2.0, key: PRNGKeyArray
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
            ValueError: the trajectories are shorter than a window.
        """
        m, i, t, _ = self.states.shape
        if not 1 <= length <= t:
            raise ValueError(
                f"length = {length}, expected 1, ..., {t}: trajectories have {t} states"
            )
        which_key, when_key = jr.split(key)
        last = t - length + 1
        soon = min(last, max(1, round(early / self.dt)))
        bound = jnp.where(jnp.arange(n) < n // 2, soon, last)
        which = jr.randint(which_key, (m, n), 0, i)
        when = jr.randint(when_key, (m, n), 0, bound[None])
        index = when[:, :, None] + jnp.arange(length)[None, None]
        rows = jnp.arange(m)[:, None, None]
        return self.states[rows, which[:, :, None], index]


def simulate(
    family: Family,
    lam: Float[Array | np.ndarray, "M p"],
    start: Float[Array | np.ndarray, "M I d"],
    *,
    duration: float = 25.0,
    dt: float = 0.01,
    rtol: float = 1e-9,
    solver: dfx.AbstractSolver | None = None,
) -> Trajectories:
    """Trajectories by an adaptive Runge-Kutta method, in float64.

    The defaults are the paper's (A.6): 25 s, Δt = 0.01, Runge-Kutta 4(5).

    Args:
        family: the exact family, a trained one, or any function from λ to a field.
        lam: M values of λ, shape (M, p).
        start: I initial states for each, shape (M, I, d).
        duration: how long to integrate.
        dt: the time between saved states.
        rtol: relative and absolute tolerance of a step.
        solver: a Diffrax solver; Dormand and Prince's 5(4) by default.

    Returns:
        `Trajectories`, of which some may be unfinished; see `finished`.

    Raises:
        ValueError: a shape that does not fit, a state that is not finite, or a
            duration, Δt or tolerance that is not positive.
    """
    lam, start = checked(lam, start, ("M", "I", "d"))
    for name, value in (("duration", duration), ("dt", dt), ("rtol", rtol)):
        if not (value > 0 and np.isfinite(value)):
            raise ValueError(f"{name} = {value}, expected a positive number")
    if duration < dt:
        raise ValueError(f"duration = {duration}, expected at least dt = {dt}")
    # In float32 neither the tolerance nor a chaotic trajectory means much.
    with jax.enable_x64(True):
        t = jnp.asarray(dt * np.arange(round(duration / dt) + 1))
        states, finished = _simulate(
            cast(family, jnp.float64),
            jnp.asarray(lam),
            jnp.asarray(start),
            t,
            # As an array: a Python float would be compiled in.
            jnp.asarray(rtol),
            solver or dfx.Dopri5(),
        )
        return Trajectories(jnp.asarray(lam), states, dt, finished)


@eqx.filter_jit
def _simulate(
    family: Family,
    lam: Array,
    start: Array,
    t: Array,
    rtol: Array,
    solver: dfx.AbstractSolver,
) -> tuple[Array, Array]:
    def one(lam: Array, start: Array) -> tuple[Array, Array]:
        field = family(lam)
        return solve(field, start, t, rtol, solver=solver, max_steps=200_000)

    # All trajectories in one batch: the loop takes as many steps as the slowest.
    every = jax.vmap(jax.vmap(one, (None, 0)))
    if start.shape[1] == 1:
        return every(lam, start)
    # By λ, when each brings many: their stiffness is alike.
    return jax.lax.map(lambda pair: jax.vmap(one, (None, 0))(*pair), (lam, start))


def checked(
    lam: Float[Array | np.ndarray, "M p"],
    start: Float[Array | np.ndarray, "M *d"],
    axes: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """λ and initial states in float64.

    Raises:
        ValueError: `start` does not have these axes, there is not one entry for each λ,
            or a state is not finite.
    """
    lam, start = np.asarray(lam, np.float64), np.asarray(start, np.float64)
    if lam.ndim != 2 or start.ndim != len(axes) or len(lam) != len(start):
        raise ValueError(
            f"lam has shape {lam.shape} and start {start.shape}, expected (M, p) and "
            f"({', '.join(axes)})"
        )
    if not np.all(np.isfinite(start)):
        raise ValueError("start is not finite, expected finite initial states")
    return lam, start


def solve(
    slope: Callable[[PyTree], PyTree],
    start: PyTree,
    t: Float[Array, " T"],
    rtol: Float[Array, ""],
    *,
    solver: dfx.AbstractSolver,
    max_steps: int,
) -> tuple[PyTree, Bool[Array, ""]]:
    """One solution dy/dt = slope(y) at times t, and whether it reached the end."""
    solution = dfx.diffeqsolve(
        dfx.ODETerm(lambda t, y, args: slope(y)),
        solver,
        t0=0.0,
        t1=t[-1],
        dt0=None,
        y0=start,
        saveat=dfx.SaveAt(ts=t),
        # A field that blows up stops where no step is small enough.
        stepsize_controller=dfx.PIDController(
            rtol=rtol, atol=rtol, dtmin=1e-12, force_dtmin=False
        ),
        max_steps=max_steps,
        # One solution that fails is a result; the others go on.
        throw=False,
    )
    fine = [jnp.all(jnp.isfinite(y)) for y in jax.tree.leaves(solution.ys)]
    return solution.ys, jnp.all(jnp.stack(fine)) & (
        solution.result == dfx.RESULTS.successful
    )
