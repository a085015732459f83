"""What a system does in the long run, where no forecast can follow it."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .model import cast
from .trajectories import Family, checked, solve

# In the order of rising complexity; the last is no behaviour but a solver's failure.
BEHAVIOURS = (
    "origin",
    "fixed points C±",
    "transient chaos",
    "limit cycle",
    "chaos",
    "failed",
)


class LongRun(eqx.Module):
    """One long trajectory for each of M values of λ, and its tangent dynamics.

    Attributes:
        lam: values of λ, shape (M, p).
        states: T states of each, from the start on, shape (M, T, d).
        dt: the time between states.
        growth: ∫ wᵀJw dt up to each state, shape (M, T), where the unit tangent w
            turns towards the direction that grows fastest.
        contraction: ∫ tr J dt up to each state, shape (M, T).
        finished: whether the solver reached the end, shape (M,).
    """

    lam: Float[Array, "M p"]
    states: Float[np.ndarray, "M T d"]
    dt: float = eqx.field(static=True)
    growth: Float[np.ndarray, "M T"]
    contraction: Float[np.ndarray, "M T"]
    finished: Bool[np.ndarray, " M"]

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
        with np.errstate(invalid="ignore"):  # a run that failed has the size NaN
            return np.sqrt(np.sum(np.var(late, axis=1), axis=-1))

    def _rate(self, integral: np.ndarray) -> np.ndarray:
        span = (integral.shape[1] - 1 - self.half) * self.dt
        with np.errstate(invalid="ignore"):  # a run that failed has the rate NaN
            return (integral[:, -1] - integral[:, self.half]) / span


def long_run(
    family: Family,
    lam: Float[Array | np.ndarray, "M p"],
    start: Float[Array | np.ndarray, "M d"],
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
        duration: how long.
        dt: the time between saved states.
        rtol: relative and absolute tolerance of a step.

    Raises:
        ValueError: shapes that do not fit, or a time or tolerance not positive.
    """
    lam, start = checked(lam, start, ("M", "d"))
    if not (0 < dt < duration < np.inf and 0 < rtol < 1):
        raise ValueError(
            f"duration = {duration}, dt = {dt}, rtol = {rtol}, expected "
            "0 < dt < duration and 0 < rtol < 1"
        )
    with jax.enable_x64(True):
        t = jnp.asarray(dt * np.arange(round(duration / dt) + 1))
        found = _long_run(
            cast(family, jnp.float64),
            jnp.asarray(lam),
            jnp.asarray(start),
            t,
            jnp.asarray(rtol),
        )
        states, growth, contraction, finished = map(np.asarray, found)
        return LongRun(jnp.asarray(lam), states, dt, growth, contraction, finished)


@eqx.filter_jit
def _long_run(
    family: Family, lam: Array, start: Array, t: Array, rtol: Array
) -> tuple[Array, Array, Array, Array]:
    def one(lam: Array, start: Array) -> tuple[Array, Array, Array, Array]:
        field = family(lam)

        def slope(y: tuple) -> tuple:
            x, w = y[:2]
            jacobian, f = jax.jacfwd(lambda x: (field(x),) * 2, has_aux=True)(x)
            turned = jacobian @ w
            rate = w @ turned / (w @ w)
            return f, turned - rate * w, rate, jnp.trace(jacobian)

        zero = jnp.zeros(())
        # A direction that is not invariant for any λ.
        tangent = jnp.ones(len(start)) / len(start) ** 0.5
        (x, _, growth, contraction), finished = solve(
            slope,
            (start, tangent, zero, zero),
            t,
            rtol,
            solver=dfx.Dopri5(),
            max_steps=1_000_000,
        )
        return x, growth, contraction, finished

    return jax.vmap(one)(lam, start)


def classify(run: LongRun) -> list[str]:
    """The behaviour of each run, one of `BEHAVIOURS`.

    What happens in the second half of the run decides. A largest exponent above 0.05
    is chaos. A state that hardly moves any more, or an exponent below -0.005, is a
    fixed point: the origin if it lies within 0.5 of it, C± else, after transient
    chaos if x changed its sign more than five times on the way. What remains is a
    limit cycle. All of it holds for this length of run: transient chaos can outlast
    any.
    """
    behaviours = []
    for states, exponent, finished in zip(
        run.states, run.lyapunov, run.finished, strict=True
    ):
        if not finished:
            behaviours.append("failed")
            continue
        last = states[-max(2, round(10 / run.dt)) :]
        still = np.max(np.ptp(last, axis=0)) < 0.1
        if exponent > 0.05 and not still:
            behaviours.append("chaos")
        elif still or exponent < -0.005:
            turns = np.sum(np.diff(np.sign(states[:, 0])) != 0)
            if np.linalg.norm(states[-1]) < 0.5:
                behaviours.append("origin")
            else:
                behaviours.append("transient chaos" if turns > 5 else "fixed points C±")
        else:
            behaviours.append("limit cycle")
    return behaviours


def confusion(true: list[str], found: list[str]) -> dict[str, dict[str, int]]:
    """How often each true behaviour (rows) was found as each other (columns).

    >>> confusion(["chaos", "chaos"], ["chaos", "limit cycle"])["chaos"]
    {'limit cycle': 1, 'chaos': 1}
    """
    table = {}
    for row in (b for b in BEHAVIOURS if b in true):
        seen = [f for t, f in zip(true, found, strict=True) if t == row]
        table[row] = {b: seen.count(b) for b in BEHAVIOURS if b in found}
    return table


def occupancy_divergence(
    found: Float[np.ndarray, "T d"], true: Float[np.ndarray, "S d"], *, bins: int = 20
) -> float:
    """D_stsp: the Kullback-Leibler divergence of state-space occupancies.

    KL(true ‖ found) over a histogram of `bins` cells an axis on the range of the true
    states, with an outer cell for what lies outside and Laplace smoothing (Koppe et
    al. 2019). 0 is perfect.

    >>> x = np.linspace(0, 1, 1000)[:, None]
    >>> occupancy_divergence(x, x), round(occupancy_divergence(x / 2, x), 1)
    (0.0, 6.8)
    """
    low, high = true.min(0), true.max(0)
    width = np.maximum(high - low, 1e-12)
    d = true.shape[1]

    def occupancy(states: np.ndarray) -> np.ndarray:
        inside = np.all((states >= low) & (states <= high), axis=1)
        cell = np.floor((states[inside] - low) / width * bins).astype(int)
        flat = np.ravel_multi_index(tuple(np.minimum(cell, bins - 1).T), (bins,) * d)
        counts = np.bincount(flat, minlength=bins**d + 1).astype(float)
        counts[-1] = np.sum(~inside)
        counts += 1e-5
        return counts / counts.sum()

    p, q = occupancy(true), occupancy(found)
    return float(np.sum(p * np.log(p / q)))


def spectrum_distance(
    found: Float[np.ndarray, "T d"],
    true: Float[np.ndarray, "T d"],
    *,
    smoothing: float = 5.0,
) -> float:
    """D_H: the Hellinger distance of power spectra, averaged over components.

    Spectra are smoothed by a Gaussian over `smoothing` frequencies and normalised
    (Mikhaeil, Monfared and Durstewitz 2022). 0 is perfect, 1 is disjoint. A component
    at rest has no spectrum: it differs by 1 from any other, and by 0 from itself.
    A run that is not finite differs by 1.
    """
    if not np.all(np.isfinite(found)):
        return 1.0

    def spectrum(states: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.rfft(states - states.mean(0), axis=0)) ** 2
        reach = np.arange(-4 * smoothing, 4 * smoothing + 1)
        kernel = np.exp(-((reach / smoothing) ** 2) / 2)
        smooth = np.stack(
            [np.convolve(p, kernel / kernel.sum(), "same") for p in power.T], axis=1
        )
        total = smooth.sum(0)
        # Rounding is no motion.
        rest = total < 1e-20 * np.maximum(1.0, np.sum(states**2, axis=0)) ** 2
        shares = smooth / np.where(rest, 1.0, total)
        return np.vstack([np.where(rest, 0.0, shares), rest])

    p, q = spectrum(true), spectrum(found)
    overlap = np.minimum(np.sum(np.sqrt(p * q), axis=0), 1.0)
    return float(np.mean(np.sqrt(1 - overlap)))
