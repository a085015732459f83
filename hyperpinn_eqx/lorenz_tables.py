"""What the Lorenz models can do, beside what nothing could do better, as text."""

import functools
from collections.abc import Callable, Mapping

import diffrax as dfx
import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float

from .attractors import LongRun, classify, long_run
from .bias import add_bias, remove_bias
from .distances import occupancy_divergence, spectrum_distance
from .experiments import EXPERIMENTS, parameter_counts, test_set
from .experiments.lorenz import SCHEME, LorenzExperiment
from .forecasts import field_error, trajectory_errors, valid_prediction_time
from .integration import Family
from .model import AbstractModel
from .multistep import Field
from .problems import Lorenz
from .tables import markdown
from .trajectories import simulate


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
# The exact field's forecasts, which share one long run, and what that is called.
_FORECASTS = ("exact, rtol 1e-3", "exact, rtol 1e-12")
_LONG_RUN = "exact, another tolerance"


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
    behaviours: list[str]

    @property
    def right(self) -> float:
        """The share of test cases whose behaviour is that of the exact family."""
        pairs = zip(self.behaviours, classify(true_run()), strict=True)
        return float(np.mean([found == true for found, true in pairs]))


@functools.cache
def true_run() -> LongRun:
    """The exact family's long runs from the test set's initial states."""
    return _follow(Lorenz(), 1e-6)


def _follow(family: Family, rtol: float) -> LongRun:
    true = test_set()
    return long_run(family, true.lam, true.states[:, 0, 0], rtol=rtol)


def measure(
    family: Family,
    *,
    rtol: float = 1e-9,
    solver: dfx.AbstractAdaptiveSolver | None = None,
    found: LongRun | None = None,
) -> LorenzRow:
    """Measures a family on the 100 test cases.

    Args:
        family: a trained model, or a field with a known error.
        rtol: tolerance of the forecasts.
        solver: of the forecasts; the one of the data by default.
        found: the family's long runs, if they are known.
    """
    true, run = test_set(), true_run()
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
        found = _follow(family, _OTHER_RTOL)
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


def measure_all(models: Mapping[str, AbstractModel]) -> dict[str, LorenzRow]:
    """Every row of the table: models, those near the bias also without it, the floors.

    The floors are the exact field with the trapezoid rule's bias, by the data's solver
    with a relative tolerance of 1e-3, and by another solver (Dopri8) with 1e-12. The
    last two differ in their forecasts alone, and have one long run.
    """
    exact = Lorenz()
    biased = measure(WithBias(exact))
    rows = {name: measure(model) for name, model in models.items()}
    for name, model in models.items():
        # Further away, something else than the bias is wrong with a model.
        if rows[name].field <= 1.5 * biased.field:
            rows[f"{name}, unbiased"] = measure(WithoutBias(model))
    rows["exact, biased"] = biased
    found, fine = _follow(exact, _OTHER_RTOL), dfx.Dopri8()
    coarse, finest = _FORECASTS
    rows[coarse] = measure(exact, rtol=1e-3, found=found)
    rows[finest] = measure(exact, rtol=1e-12, solver=fine, found=found)
    return rows


def lorenz_table(
    rows: Mapping[str, LorenzRow], models: Mapping[str, AbstractModel]
) -> str:
    """The forecasts of every row as a Markdown table.

    Parameters are those of the model and of the network evaluated at every point; the
    mean and the median of the mean squared errors are over trajectories; valid times
    are medians and quartiles in Lyapunov times, over the chaotic cases.
    """
    lines = []
    for name, row in rows.items():
        known, counts = EXPERIMENTS.get(name), ""
        if name in models:
            counts = " / ".join(map(str, parameter_counts(models[name]).values()))
        paper = f"{known.paper_mse}" if isinstance(known, LorenzExperiment) else ""
        low, middle, high = np.quantile(row.valid_time, [0.25, 0.5, 0.75])
        lines.append(
            [
                name,
                counts,
                f"{row.field:.1e}",
                paper,
                f"{np.mean(row.mse):.1f}",
                f"{np.median(row.mse):.1e}",
                f"{middle:.1f} ({low:.1f}-{high:.1f})",
                f"{np.sum(~row.finished)}",
            ]
        )
    head = ["field", "parameters", "field error", "MSE, paper", "mean", "median"]
    return markdown([*head, "valid time", "failed"], lines)


def attractor_table(rows: Mapping[str, LorenzRow]) -> str:
    """The long-run measures of every row as a Markdown table.

    A forecast's tolerance has no part in them: the exact field has one row.
    """
    each = {_LONG_RUN if n in _FORECASTS else n: row for n, row in rows.items()}
    lines = [
        [
            name,
            f"{row.right:.0%}",
            f"{np.median(row.lyapunov):.3f}",
            f"{np.median(row.lyapunov_sum):.1e}",
            f"{np.median(row.occupancy):.2f}",
            f"{np.median(row.spectrum):.3f}",
        ]
        for name, row in each.items()
    ]
    head = [
        "field",
        "behaviour right",
        "exponent, error",
        "sum, error",
        "D_stsp",
        "D_H",
    ]
    return markdown(head, lines)


def confusion_table(table: Mapping[str, Mapping[str, int]]) -> str:
    """What `confusion` returns as a Markdown table: truth in rows."""
    lines = [[row, *map(str, counts.values())] for row, counts in table.items()]
    return markdown(["truth", *next(iter(table.values()))], lines)


def lorenz_tables(models: Mapping[str, AbstractModel]) -> str:
    """Both tables: what `python -m hyperpinn_eqx evaluate` prints."""
    rows = measure_all(models)
    chaotic = len(next(iter(rows.values())).valid_time)
    return (
        "Lorenz system: 100 test trajectories of 25 s, parameters and initial states "
        "not seen in training\n"
        "parameters: of the model / evaluated at every point; mean, median: of the MSE "
        "per component;\n"
        f"valid time: median (quartiles) in Lyapunov times over {chaotic} chaotic cases"
        "\n\n"
        f"{lorenz_table(rows, models)}\n\n"
        "The long run, 200 s: behaviour over all cases, medians of the rest\n\n"
        f"{attractor_table(rows)}"
    )
