"""The paper's Table 1 with our rows beside it, as text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from . import checks
from .box import Box
from .checkpoint import load, read_card
from .experiments import (
    EXPERIMENTS,
    BurgersExperiment,
    FamilyExperiment,
    LorenzExperiment,
    held_out_error,
    parameter_counts,
)
from .experiments.lorenz import STATE
from .experiments.train import Experiment
from .metrics import FamilyError, family_error
from .model import AbstractModel, dtype_of
from .pretrained import load_card, load_pretrained, pretrained_names
from .problems import AbstractPDE, Burgers


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
        ValueError: an unknown name, a damaged file, or a model of another equation.
        TypeError: no list of strings.
        FileNotFoundError: no such file.
    """
    checks.instance("names", names, (list, tuple))
    models, cards = load_models(names or shipped(BurgersExperiment))
    for name, experiment in recognise_all(models, cards).items():
        if not isinstance(experiment, BurgersExperiment):
            raise ValueError(
                f"{name} is a model of {experiment.equation}, expected one of "
                f"{BurgersExperiment.equation}"
            )
    return measure(models)


def measure(models: Mapping[str, AbstractModel]) -> list[Row]:
    """The error of models of Burgers' equation, by name."""
    return [Row(n, m, family_error(m, Burgers())) for n, m in models.items()]


def load_models(
    names: Sequence[str],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Shipped models by name, or `.eqx` files by path: the models, and their cards.

    Raises:
        ValueError: an unknown name, or a damaged file.
        TypeError: no list of strings.
        FileNotFoundError: no such file.
    """
    checks.instance("names", names, (list, tuple))
    for name in names:
        checks.instance("one of names", name, str)
    files = {n for n in names if n.endswith(".eqx")}
    return (
        {n: load(n) if n in files else load_pretrained(n) for n in names},
        {n: read_card(n) if n in files else load_card(n) for n in names},
    )


def recognise(model: Any, card: Mapping[str, Any] | None = None) -> Experiment | None:
    """The experiment that says how a model is measured; None if that is not known.

    Where a card names an equation, that decides; without one, the name of an experiment
    in the card; without either, the architecture: names and ranges of λ and of the
    inputs are those of one equation only. In no case are these names others than the
    experiment's.
    """
    if not isinstance(model, AbstractModel):
        return None
    lam, inputs = model.parameters, _inputs(model)
    fitting = [
        (e, e.problem.parameters == lam and at == inputs)
        for e in EXPERIMENTS.values()
        for at in [STATE if isinstance(e, LorenzExperiment) else e.problem.domain]
        if (e.problem.parameters.names, at.names) == (lam.names, inputs.names)
    ]
    card = card or {}
    if "equation" in card:
        found = [e for e, _ in fitting if e.equation == card["equation"]]
    elif card.get("name") in EXPERIMENTS:
        found = [e for e, _ in fitting if e.name == card["name"]]
    else:
        found = [e for e, same in fitting if same]
    return found[0] if len({e.equation for e in found}) == 1 else None


def recognise_all(
    models: Mapping[str, Any], cards: Mapping[str, Mapping[str, Any]]
) -> dict[str, Experiment]:
    """The experiment of each model by name.

    Raises:
        ValueError: a model that is not known.
    """
    found = {}
    for name, model in models.items():
        experiment = recognise(model, cards[name])
        if experiment is None:
            told = cards[name].get("equation", cards[name].get("name", "nothing"))
            what = type(model).__name__
            if isinstance(model, AbstractModel):
                what += f" with {model.parameters} and inputs {_inputs(model)}"
            known = dict.fromkeys(e.equation for e in EXPERIMENTS.values())
            raise ValueError(
                f"{name}: how to measure it is not known; its card says {told!r}, and "
                f"it is a {what}; expected a model of one of: {'; '.join(known)}"
            )
        found[name] = experiment
    return found


def _inputs(model: AbstractModel) -> Box:
    scaled = jnp.zeros(len(model.parameters), dtype_of(model))
    return eqx.filter_eval_shape(model.generate, scaled).spec.inputs


def shipped(kind: type) -> list[str]:
    """The shipped models of one kind of experiment, in the order of `EXPERIMENTS`."""
    names = pretrained_names()
    return [n for n, e in EXPERIMENTS.items() if isinstance(e, kind) and n in names]


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


def error_per_nu(rows: Sequence[Row], every: int = 7) -> str:
    """The mean squared error at every seventh ν as a Markdown table.

    Raises:
        ValueError: no rows, rows with other ν than the first, or `every` below 1.
    """
    every = checks.count("every", every)
    if not rows or any(
        not np.array_equal(r.error.lam, rows[0].error.lam) for r in rows
    ):
        raise ValueError(f"{len(rows)} rows, expected one or more, all of the same ν")
    lines = [
        [f"{nu:.4f}", *(f"{row.error.mse[i]:.1e}" for row in rows)]
        for i, nu in enumerate(rows[0].error.lam)
        if i % every == 0
    ]
    return markdown(["ν", *(row.name for row in rows)], lines, first="---:")


def burgers_tables(models: Mapping[str, AbstractModel]) -> str:
    """Both tables: what `python -m hyperpinn_eqx evaluate` prints."""
    rows = measure(models)
    return (
        "Burgers' equation: mean squared error over 64 ν x 101 t x 256 x, float64\n\n"
        f"{table_1(rows)}\n\nMean squared error per ν\n\n{error_per_nu(rows)}"
    )


def family_of(
    model: AbstractModel, card: Mapping[str, Any] | None = None
) -> AbstractPDE | None:
    """The family beyond the paper that `recognise` finds, if there is one."""
    experiment = recognise(model, card)
    return experiment.problem if isinstance(experiment, FamilyExperiment) else None


def family_tables(
    models: Mapping[str, AbstractModel],
    cards: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """The errors of models of families beyond the paper, at λ that none was trained on.

    Args:
        models: by name.
        cards: of these models, where they have any; see `recognise`.

    Raises:
        ValueError: a model of none of these families.
    """
    summary, each = [], []
    for name, model in models.items():
        problem = family_of(model, (cards or {}).get(name))
        if problem is None:
            raise ValueError(
                f"{name} has the parameters {model.parameters.names}, expected those "
                "of a family in experiments.FAMILIES"
            )
        error = held_out_error(model, problem)
        relative, counts = error.relative_l2, parameter_counts(model)
        found = (relative[0], np.median(relative), relative.max())
        cells = [*map(str, counts.values()), *(f"{e:.1e}" for e in found)]
        summary.append([name, *cells])
        lams = error.lam.reshape(len(error.lam), -1)
        head = [name, *problem.parameters.names, "relative L2 error"]
        lines = [
            ["", *(f"{v:.4g}" for v in lams[i]), f"{relative[i]:.1e}"]
            for i in np.argsort(lams[:, 0])[::8]
        ]
        each.append(markdown(head, lines))
    head = ["model", "parameters", "evaluated at every point"]
    head += ["middle λ", "median over λ", "largest"]
    return (
        "Beyond the paper: relative L2 error at 65 held-out λ, float64\n\n"
        + "\n\n".join([markdown(head, summary), *each])
    )
