"""What the benchmarks share: device settings, a fair timer, and a record.

Each script takes `--quick`: all of its code, but sizes so small that it ends in seconds
and its numbers tell nothing. Then no record is written.
"""

import dataclasses
import os
import pathlib
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import jax

import hyperpinn_eqx as hpx
from hyperpinn_eqx import _files as files
from hyperpinn_eqx import paper

DATA = pathlib.Path(__file__).parent.parent / "book" / "data"
QUICK = "--quick" in sys.argv
_LOST = tempfile.TemporaryDirectory()
_TINY: dict[type, dict[str, int]] = {
    paper.Adam: {"steps": 2, "n_lam": 2, "n_points": 4},
    paper.Continuation: {
        **{"n_lam": 2, "first": 1, "steps": 1, "n_points": 8, "distill_steps": 2}
    },
    paper.GaussNewton: {"steps": 1, "n_lam": 2, "n_points": 8, "rank": 4},
    paper.MultistepAdam: {"steps": 2, "n_windows": 4},
    paper.MultistepGaussNewton: {"steps": 1, "n_windows": 4, "rank": 4},
}
Name = TypeVar("Name", bound=Hashable)
Trained = TypeVar("Trained", paper.BurgersExperiment, paper.LorenzExperiment)

# TF32 would give GPUs fewer digits than CPUs, and other numbers than the tables.
if jax.default_backend() == "gpu":
    jax.config.update("jax_default_matmul_precision", "highest")


def made() -> dict[str, Any]:
    """On what a record was made."""
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "cpus": os.cpu_count(),
        "matmul_precision": jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        or "default",
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "default"),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and what it returns."""
    start = time.perf_counter()
    value = jax.block_until_ready(function())
    return time.perf_counter() - start, value


def interleaved(
    functions: Mapping[Name, Callable[[], Any]], rounds: int
) -> dict[Name, list[float]]:
    """Seconds of each call, after one call of each to compile it.

    All functions take turns, so that ratios hold even if the machine's speed drifts,
    and in a new order every round: each finds the caches as the one before left them.
    """
    for function in functions.values():
        jax.block_until_ready(function())
    seconds: dict[Name, list[float]] = {name: [] for name in functions}
    turns, shuffler = list(functions.items()), random.Random(0)
    for _ in range(rounds):
        shuffler.shuffle(turns)
        for name, function in turns:
            seconds[name].append(timed(function)[0])
    return seconds


def medians(
    functions: Mapping[Name, Callable[[], Any]], rounds: int
) -> dict[Name, float]:
    """The median of what `interleaved` measures."""
    seconds = interleaved(functions, rounds)
    return {name: statistics.median(values) for name, values in seconds.items()}


def text(seconds: float) -> str:
    """Seconds for a table, in a unit that suits them.

    >>> text(0.00123)
    '1.23 ms'
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{1e6 * seconds:.3g} µs"


def told() -> str:
    """The same as `made`, as one line to print above the tables."""
    return ", ".join(f"{name} {value}" for name, value in made().items())


def error_curve(card: dict[str, Any]) -> list[list[float]]:
    """Seconds from the start of a training and the error then, as its card tells."""
    points, before = [], 0.0
    for stage in card["stages"]:
        points += [[round(before + s, 1), e] for s, e in stage.get("curve", ())]
        before += stage["seconds"]
    return [*points, [round(before, 1), card["error"]["mse"]]]


def folder(path: str | pathlib.Path) -> pathlib.Path:
    """Where to write; with `--quick` a folder that is gone in the end."""
    return pathlib.Path(_LOST.name if QUICK else path)


def tiny(experiment: Trained) -> Trained:
    """The same stages for a small model, each over in no time."""
    stages: list[Any] = list(experiment.stages)
    small: dict[str, Any] = {
        "stages": tuple(dataclasses.replace(s, **_TINY[type(s)]) for s in stages),
        "hidden": experiment.hidden and (4, 3),
    }
    if isinstance(experiment, paper.BurgersExperiment):
        small["main"] = (2, 4, 1)
    else:
        small["duration"] = 1.0
    return dataclasses.replace(experiment, **small)


def lorenz_cases() -> tuple[hpx.Trajectories, hpx.LongRun]:
    """The Lorenz test set and its long runs; with `--quick`, short ones."""
    if QUICK:
        return paper.test_set(1.0), paper.true_run(20.0)
    return paper.test_set(), paper.true_run()


def write(name: str, record: dict[str, Any]) -> None:
    """Writes `book/data/<name>.json`, with what it was made on; not with `--quick`."""
    if QUICK:
        return
    DATA.mkdir(exist_ok=True)
    files.write_json(DATA / f"{name}.json", {"made": made(), **record})
