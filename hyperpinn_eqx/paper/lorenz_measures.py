"""What models of the Lorenz system can do, beside what nothing could do better."""

import functools
from collections.abc import Callable, Mapping

import diffrax as dfx
import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float

from ..dynamics.bias import add_bias, remove_bias
from ..dynamics.distances import occupancy_divergence, spectrum_distance
from ..dynamics.forecasts import field_error, trajectory_errors, valid_prediction_time
from ..dynamics.integrate import Family
from ..dynamics.lyapunov import LongRun, long_run
from ..dynamics.multistep import Field
from ..dynamics.trajectories import Trajectories, simulate
from ..networks.model import AbstractModel
from ..problems.lorenz import Lorenz
from .behaviours import Behaviour, classify
from .lorenz_data import SCHEME


class Changed(eqx.Module):
    """A family whose fields are changed one by one: `change` of every `family(lam)`."""

    change: Callable[[Field], Field] = eqx.field(static=True)
    family: Family

    def __call__(self, lam: jax.Array) -> Field:
        return self.change(self.family(lam))


_DT = 0.01
# A learned family without the leading bias of the trapezoid rule on the paper's data,
# and the family that a perfect network would learn of another.
WithoutBias = functools.partial(
    Changed, functools.partial(remove_bias, scheme=SCHEME, dt=_DT)
)
WithBias = functools.partial(
    Changed, functools.partial(add_bias, scheme=SCHEME, dt=_DT)
)


# Of long runs: another tolerance than the truth's, so that the exact field has a floor
# too.
_OTHER_RTOL = 1e-5
# The exact field's forecasts, which share one long run.
FORECASTS = ("exact, rtol 1e-3", "exact, rtol 1e-12")


class LorenzRow(eqx.Module):
    """All measures of one family on the test set.

    Attributes:
        field: relative L2 error of the field.
        mse: mean squared error per component of each trajectory, NaN if it failed.
        finished: which of the trajectories of 25 s stayed finite.
        valid_time: Lyapunov times until a forecast fails, for the chaotic λ.
        lyapunov: error of the largest exponent, without its sign, for the chaotic λ.
        lyapunov_sum: the same of the sum of all exponents, -(σ + 1 + β).
        occupancy: D_stsp for the chaotic λ.
        spectrum: D_H for the chaotic λ.
        behaviours: of each test case, see `classify`.
    """

    field: float
    mse: Float[np.ndarray, " M"]
    finished: Bool[np.ndarray, " M"]
    valid_time: Float[np.ndarray, " C"]
    lyapunov: Float[np.ndarray, " C"]
    lyapunov_sum: Float[np.ndarray, " M"]
    occupancy: Float[np.ndarray, " C"]
    spectrum: Float[np.ndarray, " C"]
    behaviours: list[Behaviour]

    def right(self, truth: LongRun) -> float:
        """The share of test cases whose behaviour is that of the exact family."""
        pairs = zip(self.behaviours, classify(truth), strict=True)
        return float(np.mean([found == true for found, true in pairs]))


def measure(
    family: Family,
    true: Trajectories,
    run: LongRun,
    *,
    rtol: float = 1e-9,
    solver: dfx.AbstractAdaptiveSolver | None = None,
    found: LongRun | None = None,
) -> LorenzRow:
    """Measures a family on test cases.

    Args:
        family: a trained model, or a field with a known error.
        true: trajectories of the exact family, one for each λ.
        run: its long runs for the same λ, from the same initial states.
        rtol: tolerance of the forecasts.
        solver: of the forecasts; the one of the data by default.
        found: the family's long runs, if they are known.
    """
    chaotic = np.array([b == "chaos" for b in classify(run)])
    forecast = simulate(
        family,
        true.lam,
        true.states[:, :, 0],
        duration=true.t[-1],
        dt=true.dt,
        rtol=rtol,
        solver=solver,
    )
    if found is None:
        found = _follow(family, true, run)
    # Only chaotic cases have a size and a Lyapunov time.
    time = valid_prediction_time(forecast, true, np.where(chaotic, run.size, 1.0))
    exact_sum = -np.sum(np.asarray(true.lam)[:, :2], axis=1) - 1
    late = run.half
    pairs = [
        (found.states[i, late:], run.states[i, late:]) for i in np.flatnonzero(chaotic)
    ]
    return LorenzRow(
        field_error(family, Lorenz(), true)[0],
        trajectory_errors(forecast, true)[:, 0],
        np.asarray(forecast.finished)[:, 0],
        (time[:, 0] * run.lyapunov)[chaotic],
        np.abs(found.lyapunov - run.lyapunov)[chaotic],
        np.abs(found.lyapunov_sum - exact_sum),
        np.array([occupancy_divergence(*pair) for pair in pairs]),
        np.array([spectrum_distance(*pair) for pair in pairs]),
        classify(found),
    )


def _follow(family: Family, true: Trajectories, run: LongRun) -> LongRun:
    return long_run(
        family,
        true.lam,
        true.states[:, 0, 0],
        duration=run.dt * (run.states.shape[1] - 1),
        dt=run.dt,
        rtol=_OTHER_RTOL,
    )


def measure_all(
    models: Mapping[str, AbstractModel], true: Trajectories, run: LongRun
) -> dict[str, LorenzRow]:
    """Every row of the table: models, those near the bias also without it, the floors.

    The floors are the exact field with the trapezoid rule's bias, by the data's solver
    with a relative tolerance of 1e-3, and by another solver (Dopri8) with 1e-12. The
    last two differ in their forecasts alone, and have one long run.
    """
    exact = Lorenz()
    biased = measure(WithBias(exact), true, run)
    rows = {name: measure(model, true, run) for name, model in models.items()}
    for name, model in models.items():
        # Further away, something else than the bias is wrong with a model.
        if rows[name].field <= 1.5 * biased.field:
            rows[f"{name}, unbiased"] = measure(WithoutBias(model), true, run)
    rows["exact, biased"] = biased
    found, fine = _follow(exact, true, run), dfx.Dopri8()
    coarse, finest = FORECASTS
    rows[coarse] = measure(exact, true, run, rtol=1e-3, found=found)
    rows[finest] = measure(exact, true, run, rtol=1e-12, solver=fine, found=found)
    return rows
