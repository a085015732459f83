"""The paper's Table 1 with our rows beside it, as text."""

from collections.abc import Sequence

import equinox as eqx

from .checkpoint import load
from .experiments import EXPERIMENTS, BurgersExperiment, parameter_counts
from .metrics import FamilyError, family_error
from .model import AbstractModel
from .pretrained import load_pretrained, pretrained_names
from .problems import Burgers


class Row(eqx.Module):
    """A model in a table: its name, the model, and its error over the family."""

    name: str
    model: AbstractModel
    error: FamilyError


def evaluate(names: Sequence[str] = ()) -> list[Row]:
    """Evaluates shipped models by name, or `.eqx` files by path.

    Args:
        names: what to evaluate; every shipped Burgers model if empty.

    Raises:
        ValueError: an unknown name, or a damaged file.
        FileNotFoundError: no such file.
    """
    models = load_models(names or shipped(BurgersExperiment))
    return [Row(n, m, family_error(m, Burgers())) for n, m in models.items()]


def load_models(names: Sequence[str]) -> dict[str, AbstractModel]:
    """Shipped models by name, or `.eqx` files by path; raises as `evaluate` does."""
    return {n: load(n) if n.endswith(".eqx") else load_pretrained(n) for n in names}


def shipped(kind: type) -> list[str]:
    """The shipped models of one kind of experiment, in the order of `EXPERIMENTS`."""
    names = pretrained_names()
    return [n for n, e in EXPERIMENTS.items() if isinstance(e, kind) and n in names]


def table_1(rows: Sequence[Row]) -> str:
    """The paper's Table 1 as a Markdown table, with parameters counted by us."""
    lines = [
        "| model | parameters | evaluated at every point | MSE, paper | MSE, ours |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        counts = parameter_counts(row.model)
        known = EXPERIMENTS.get(row.name)
        paper = f"{known.paper_mse:.1e}" if known else "-"
        lines.append(
            f"| {row.name} | {counts['model']} | {counts['main network']} "
            f"| {paper} | {row.error.mean:.1e} |"
        )
    return "\n".join(lines)


def error_per_nu(rows: Sequence[Row], every: int = 7) -> str:
    """The mean squared error at every seventh ν as a Markdown table."""
    lines = [
        "| ν | " + " | ".join(row.name for row in rows) + " |",
        "| ---: |" + " ---: |" * len(rows),
    ]
    for i in range(0, len(rows[0].error.lam), every):
        cells = [f"{row.error.mse[i]:.1e}" for row in rows]
        lines.append(f"| {rows[0].error.lam[i]:.4f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def burgers_tables(names: Sequence[str] = ()) -> str:
    """Both tables: what `python -m hyperpinn_eqx evaluate` prints."""
    rows = evaluate(names)
    return (
        "Burgers' equation: mean squared error over 64 ν x 101 t x 256 x, float64\n\n"
        f"{table_1(rows)}\n\nMean squared error per ν\n\n{error_per_nu(rows)}"
    )
