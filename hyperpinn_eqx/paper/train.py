"""All experiments, and the one function that runs any of them."""

import dataclasses
import datetime
import os
import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr

from .. import _files as files
from .._arguments import CountOrZero, checked
from ..networks import checkpoint
from ..networks.main import in_float64
from ..networks.model import AbstractModel, count_parameters
from ..training.journal import Journal
from .burgers import BURGERS, BURGERS_PAPER, BurgersExperiment
from .families import FAMILIES, FamilyExperiment
from .lorenz import LORENZ, LORENZ_PAPER, LorenzExperiment

Experiment = BurgersExperiment | LorenzExperiment | FamilyExperiment
# The shipped weights are "best"; "paper" is what the paper says, and Adam.
BEST: tuple[Experiment, ...] = (*BURGERS, *LORENZ, *FAMILIES)
PAPER: tuple[Experiment, ...] = (*BURGERS_PAPER, *LORENZ_PAPER)
EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType({e.name: e for e in BEST})
RECIPES: Mapping[str, Mapping[str, Experiment]] = MappingProxyType(
    {"best": EXPERIMENTS, "paper": MappingProxyType({e.name: e for e in PAPER})}
)


@in_float64
@checked
def train(
    experiment: Experiment,
    *,
    seed: CountOrZero = 0,
    out: str | os.PathLike = ".",
    resume: bool = False,
    progress: bool = True,
) -> tuple[AbstractModel, dict[str, Any]]:
    """Trains one model from scratch and writes `NAME.eqx` and its card `NAME.json`.

    For a recipe that is not the best one, `NAME` is the experiment's name and that of
    the recipe.

    Where the training stands is kept in `NAME.journal` until it is over. Ctrl-C stops
    it after the present step, and `resume=True` goes on from there.

    Args:
        experiment: what to train, such as `EXPERIMENTS["burgers-hyperpinn"]`.
        seed: of everything random.
        out: the folder to write to; it is made if need be.
        resume: goes on from the journal in `out`, if there is one.
        progress: whether to show bars.

    Returns:
        The model, and the card as a dictionary.

    Raises:
        ValueError: there is a journal that is not to be resumed, damaged, or of another
            training.
        Stopped: a stop was requested; the journal has everything.
        OSError: nothing can be written in `out`, or another process is writing this
            model there.
    """
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    name, file = experiment.name, experiment.stem
    config = {"name": name, "seed": seed, "recipe": dataclasses.asdict(experiment)}
    with Journal(out / f"{file}.journal", config, resume=resume) as journal:
        model, details = experiment.run(
            key=jr.key(seed), progress=progress, journal=journal
        )
        card = {
            "name": name,
            "architecture": model.config(),
            "parameters": parameter_counts(model),
            **details,
            "seed": seed,
            "dtype": "float64",
            "date": datetime.date.today().isoformat(),
            "hardware": f"{os.cpu_count()} CPU cores, {jax.devices()[0].device_kind}",
            "versions": files.libraries(),
        }
        checkpoint.save(out / f"{file}.eqx", model, card)
        files.write_json(out / f"{file}.json", card)
        journal.discard()
    return model, card


def parameter_counts(model: AbstractModel) -> dict[str, int]:
    """Trainable numbers of a model, and of the network evaluated at every point."""
    middle = [
        (lo + hi) / 2
        for lo, hi in zip(model.parameters.low, model.parameters.high, strict=True)
    ]
    return {
        "model": count_parameters(model),
        "main network": count_parameters(model(jnp.asarray(middle))),
    }
