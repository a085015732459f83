"""The one function that runs any of the experiments, by name."""

import dataclasses
import datetime
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr

from .. import checkpoint, checks, files
from ..journal import Journal
from ..model import AbstractModel, count_parameters
from .burgers import BURGERS, BURGERS_PAPER, BurgersExperiment
from .families import FAMILIES, FamilyExperiment
from .lorenz import LORENZ, LORENZ_PAPER, LorenzExperiment

Experiment = BurgersExperiment | LorenzExperiment | FamilyExperiment
# The shipped weights are "best"; "paper" is what the paper says, and Adam.
BEST: tuple[Experiment, ...] = (*BURGERS, *LORENZ, *FAMILIES)
EXPERIMENTS = {e.name: e for e in BEST}
PAPER: tuple[Experiment, ...] = (*BURGERS_PAPER, *LORENZ_PAPER)
RECIPES = {"best": EXPERIMENTS, "paper": {e.name: e for e in PAPER}}


def file_stem(name: str, recipe: str) -> str:
    """What the files of a trained model are called, without their endings."""
    return name if recipe == "best" else f"{name}-{recipe}"


def train(
    name: str,
    *,
    recipe: str = "best",
    seed: int = 0,
    out: str | os.PathLike = ".",
    resume: bool = False,
    progress: bool = True,
) -> tuple[AbstractModel, dict[str, Any]]:
    """Trains one model from scratch and writes `NAME.eqx` and its card `NAME.json`.

    Where the training stands is kept in `NAME.journal` until it is over. Ctrl-C stops
    it after the present step, and `resume=True` goes on from there.

    Args:
        name: an experiment's name.
        recipe: "best", or "paper", which writes `NAME-paper.eqx` and so on.
        seed: of everything random.
        out: the folder to write to; it is made if need be.
        resume: goes on from the journal in `out`, if there is one.
        progress: whether to show bars.

    Returns:
        The model, and the card as a dictionary.

    Raises:
        ValueError: an unknown name or recipe, JAX is not in float64 mode, or there is
            a journal that is not to be resumed, damaged, or of another training.
        Stopped: a stop was requested; the journal has everything.
        OSError: nothing can be written in `out`, or another process is writing this
            model there.
    """
    checks.choice("recipe", recipe, list(RECIPES))
    checks.choice("name", name, list(RECIPES[recipe]))
    checks.count("seed", seed, 0)
    checks.instance("out", out, (str, os.PathLike))
    checks.float64_mode()
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    experiment = RECIPES[recipe][name]
    file = file_stem(name, recipe)
    config = {"name": name, "seed": seed, "recipe": dataclasses.asdict(experiment)}
    with Journal(out / f"{file}.journal", config, resume=resume) as journal:
        model, told = experiment.run(
            key=jr.key(seed), progress=progress, journal=journal
        )
        card = {
            "name": name,
            "architecture": model.config(),
            "parameters": parameter_counts(model),
            **told,
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
