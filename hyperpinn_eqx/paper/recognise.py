"""Which experiment a model belongs to, so that it is measured as that one is."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._arguments import MayBeEmpty, checked
from ..box import Box
from ..networks.checkpoint import load, read_card
from ..networks.main import in_float64, precision
from ..networks.model import AbstractModel, dtype_of
from ..pretrained import load_card, load_pretrained, pretrained_names
from .train import EXPERIMENTS, Experiment


# In single precision the weights would not be those of the file.
@in_float64
@checked
def load_models(
    names: MayBeEmpty[Sequence[str]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Shipped models by name, or `.eqx` files by path: the models, and their cards.

    Raises:
        ValueError: an unknown name, or a damaged file.
        FileNotFoundError: no such file.
    """
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
        (e, e.problem.parameters == lam and e.inputs == inputs)
        for e in EXPERIMENTS.values()
        if e.problem.parameters.names == lam.names and e.inputs.names == inputs.names
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
            named = cards[name].get("equation", cards[name].get("name", "nothing"))
            what = type(model).__name__
            if isinstance(model, AbstractModel):
                what += f" with {model.parameters} and inputs {_inputs(model)}"
            known = dict.fromkeys(e.equation for e in EXPERIMENTS.values())
            raise ValueError(
                f"{name}: how to measure it is not known; its card says {named!r}, and "
                f"it is a {what}; expected a model of one of: {'; '.join(known)}"
            )
        found[name] = experiment
    return found


def _inputs(model: AbstractModel) -> Box:
    with precision(dtype_of(model)):
        scaled = jnp.zeros(len(model.parameters), dtype_of(model))
        return eqx.filter_eval_shape(model.generate, scaled).spec.inputs


def shipped(kind: type) -> list[str]:
    """The shipped models of one kind of experiment, in the order of `EXPERIMENTS`."""
    names = pretrained_names()
    return [n for n, e in EXPERIMENTS.items() if isinstance(e, kind) and n in names]
