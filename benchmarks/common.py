"""What the benchmarks share: device settings, a fair timer, and a record."""

import os
import pathlib
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from hyperpinn_eqx import files

DATA = pathlib.Path(__file__).parent.parent / "book" / "data"

# TF32 would give GPUs fewer digits than CPUs, and other numbers than the tables.
if jax.default_backend() == "gpu":
    jax.config.update("jax_default_matmul_precision", "highest")


def made() -> dict[str, Any]:
    """On what a record was made."""
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "cpus": os.cpu_count(),
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
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
    functions: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call, after one call of each to compile it.

    All functions take turns, so that ratios hold even if the machine's speed drifts,
    and in a new order every round: each finds the caches as the one before left them.
    """
    for function in functions.values():
        jax.block_until_ready(function())
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    turns, shuffler = list(functions.items()), random.Random(0)
    for _ in range(rounds):
        shuffler.shuffle(turns)
        for name, function in turns:
            seconds[name].append(timed(function)[0])
    return seconds


def medians(
    functions: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, float]:
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


def write(name: str, record: dict[str, Any]) -> None:
    """Writes `book/data/<name>.json`, with what it was made on."""
    DATA.mkdir(exist_ok=True)
    files.write_json(DATA / f"{name}.json", {"made": made(), **record})
