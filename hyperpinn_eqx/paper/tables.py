"""The paper's Table 1 with our rows beside it, as text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import numpy as np

from .._arguments import Count, MayBeEmpty, checked
from ..networks.model import AbstractModel
from ..physics.metrics import FamilyError
from .burgers import BurgersExperiment
from .families import FamilyExperiment
from .recognise import load_models, recognise_all, shipped
from .train import EXPERIMENTS, parameter_counts


class Row(eqx.Module):
    """A model in a table: its name, the model, and its error over the family."""

    name: str
    model: AbstractModel
    error: FamilyError


@checked
def evaluate(names: MayBeEmpty[Sequence[str]] = ()) -> list[Row]:
    """Evaluates shipped models by name, or `.eqx` files by path.

    Args:
        names: what to evaluate; every shipped Burgers model if empty.

    Raises:
        ValueError: an unknown name, a damaged file, or a model of another equation.
        FileNotFoundError: no such file.
    """
    models, cards = load_models(names or shipped(BurgersExperiment))
    known = {}
    for name, experiment in recognise_all(models, cards).items():
        if not isinstance(experiment, BurgersExperiment):
            raise ValueError(
                f"{name} is a model of {experiment.equation}, expected one of "
                f"{BurgersExperiment.equation}"
            )
        known[name] = experiment
    return measure(models, known)


def measure(
    models: Mapping[str, AbstractModel], known: Mapping[str, BurgersExperiment]
) -> list[Row]:
    """The error of models of Burgers' equation, by name."""
    return [Row(n, m, known[n].measure(m)) for n, m in models.items()]


def markdown(
    head: Sequence[str], rows: Iterable[Sequence[str]], first: str = "---"
) -> str:
    """A Markdown table; all columns but the first are set to the right.

    >>> print(markdown(["model", "error"], [["large", "1e-3"]]))
    | model | error |
    | --- | ---: |
    | large | 1e-3 |
    """
    lines = [head, [first, *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def table_1(rows: Sequence[Row]) -> str:
    """The paper's Table 1 as a Markdown table, with parameters counted by us."""
    head = [
        "model",
        "parameters",
        "evaluated at every point",
        "MSE, paper",
        "MSE, ours",
    ]
    lines = []
    for row in rows:
        counts = parameter_counts(row.model)
        known = EXPERIMENTS.get(row.name)
        paper = "-"
        if isinstance(known, BurgersExperiment):
            paper = f"{known.paper_mse:.1e}"
        cells = map(str, counts.values())
        lines.append([row.name, *cells, paper, f"{row.error.mean:.1e}"])
    return markdown(head, lines)


@checked
def error_per_nu(rows: Sequence[Row], every: Count = 7) -> str:
    """The mean squared error at every seventh ν as a Markdown table.

    Raises:
        ValueError: rows with other ν than the first.
    """
    if any(not np.array_equal(r.error.lam, rows[0].error.lam) for r in rows):
        raise ValueError(f"{len(rows)} rows, expected all of the same ν")
    lines = [
        [f"{nu:.4f}", *(f"{row.error.mse[i]:.1e}" for row in rows)]
        for i, nu in enumerate(rows[0].error.lam)
        if i % every == 0
    ]
    return markdown(["ν", *(row.name for row in rows)], lines, first="---:")


def burgers_tables(
    models: Mapping[str, AbstractModel], known: Mapping[str, BurgersExperiment]
) -> str:
    """Both tables of models of Burgers' equation, by name, with their experiments."""
    rows = measure(models, known)
    return (
        "Burgers' equation: mean squared error over 64 ν x 101 t x 256 x, float64\n\n"
        f"{table_1(rows)}\n\nMean squared error per ν\n\n{error_per_nu(rows)}"
    )


def family_tables(
    models: Mapping[str, AbstractModel],
    known: Mapping[str, FamilyExperiment],
    cards: Mapping[str, Mapping[str, Any]],
) -> str:
    """The errors of models of families beyond the paper, at λ that none was trained on.

    Args:
        models: by name.
        known: the experiment of each.
        cards: what the files of the models tell about their training.
    """
    summary, each = [], []
    for name, model in models.items():
        error = known[name].measure(model)
        relative, counts = error.relative_l2, parameter_counts(model)
        found = (relative[0], np.median(relative), relative.max(), error.pooled)
        cells = [*map(str, counts.values()), *(f"{e:.1e}" for e in found)]
        told = _training_time(cards[name]), known[name].published or "-"
        summary.append([name, *cells, *told])
        for field, one in error.fields.items():
            l2 = one.relative_l2
            rows = (l2[0], np.median(l2), l2.max(), one.pooled)
            summary.append(
                [f"{name}: {field}", "", "", *(f"{e:.1e}" for e in rows), "", ""]
            )
        lams = error.lam.reshape(len(error.lam), -1)
        head = [name, *model.parameters.names, "relative L2 error"]
        lines = [
            ["", *(f"{v:.4g}" for v in lams[i]), f"{relative[i]:.1e}"]
            for i in np.argsort(lams[:, 0])[::8]
        ]
        each.append(markdown(head, lines))
    head = ["model", "parameters", "evaluated at every point"]
    head += ["middle λ", "median over λ", "largest", "all λ together"]
    head += ["training", "published"]
    return (
        "Beyond the paper: relative L2 error at 65 held-out λ, float64\n\n"
        + "\n\n".join([markdown(head, summary), *each])
    )


def _training_time(card: Mapping[str, Any]) -> str:
    stages = card.get("stages", ())
    return f"{sum(stage['seconds'] for stage in stages):.0f} s" if stages else "-"
