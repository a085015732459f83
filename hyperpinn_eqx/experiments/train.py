"""The one function that runs any of the experiments, by name."""

import datetime
import os
import pathlib
import platform
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from .. import checkpoint
from ..model import AbstractModel, count_parameters
from .burgers import BURGERS, BurgersExperiment
from .lorenz import LORENZ, LorenzExperiment

EXPERIMENTS: dict[str, BurgersExperiment | LorenzExperiment] = {
    e.name: e for e in (*BURGERS, *LORENZ)
}


def train(
    name: str,
    *,
    seed: int = 0,
    out: str | os.PathLike = ".",
    progress: bool = True,
) -> tuple[AbstractModel, dict[str, Any]]:
    """Trains one model from scratch and writes `NAME.eqx` and its card `NAME.json`.

    Args:
        name: an experiment's name.
        seed: of everything random.
        out: the folder to write to; it is made if need be.
        progress: whether to show bars.

    Returns:
        The model, and the card as a dictionary.

    Raises:
        ValueError: an unknown name, or JAX is not in float64 mode.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"name = {name!r}, expected one of {', '.join(EXPERIMENTS)}")
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "jax_enable_x64 = False, expected True: Gauss-Newton needs float64"
        )
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model, told = EXPERIMENTS[name].run(key=jr.key(seed), progress=progress)
    card = {
        "name": name,
        "architecture": model.config(),
        "parameters": parameter_counts(model),
        **told,
        "seed": seed,
        "dtype": "float64",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, {jax.devices()[0].device_kind}",
        "versions": {
            "python": platform.python_version(),
            **{p.__name__: p.__version__ for p in (jax, eqx, optax, np)},
        },
    }
    checkpoint.save(out / f"{name}.eqx", model, card)
    checkpoint.write_json(out / f"{name}.json", card)
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
