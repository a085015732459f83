"""Tables of the Lorenz models and of their error floors."""

from collections.abc import Mapping

import numpy as np

from ..dynamics.lyapunov import LongRun
from ..networks.model import AbstractModel
from .lorenz import LorenzExperiment
from .lorenz_data import test_set, true_run
from .lorenz_measures import FORECASTS, LorenzRow, measure_all
from .tables import markdown
from .train import EXPERIMENTS, parameter_counts


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


def attractor_table(rows: Mapping[str, LorenzRow], truth: LongRun) -> str:
    """The long-run measures of every row as a Markdown table.

    A forecast's tolerance has no part in them: the exact field has one row.
    """
    long_run = "exact, another tolerance"
    each = {long_run if n in FORECASTS else n: row for n, row in rows.items()}
    lines = [
        [
            name,
            f"{row.right(truth):.0%}",
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


def lorenz_tables(
    models: Mapping[str, AbstractModel], known: Mapping[str, LorenzExperiment]
) -> str:
    """Both tables of models of the Lorenz system, by name, with their experiments."""
    rows = measure_all(models, test_set(), true_run())
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
        f"{attractor_table(rows, true_run())}"
    )
