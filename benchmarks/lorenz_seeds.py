"""Do the Lorenz results depend on the seed, on Gauss-Newton, on the trunk?

    python benchmarks/lorenz_seeds.py [FOLDER] [--quick]

Trains the three models from three seeds each; once by Adam alone; and the HyperPINN
with its trunk free. Measures all of them on the test set. Weights go to FOLDER
(`trained/lorenz-seeds` by default), where a run that is there already is not repeated;
the record goes to the screen and to `book/data/lorenz-seeds.json`, which the chapter
shows. About half an hour on one core. A run that was stopped goes on where it was.
"""

import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import common

import hyperpinn_eqx as hpx
from hyperpinn_eqx import paper
from hyperpinn_eqx.networks import checkpoint
from hyperpinn_eqx.paper.lorenz import LORENZ, LORENZ_PAPER
from hyperpinn_eqx.paper.lorenz_measures import measure

# What the shipped recipe leaves out: Gauss-Newton, and the frozen trunk.
ADAM = [
    dataclasses.replace(e, name=f"{e.name}-adam", recipe="best") for e in LORENZ_PAPER
]
FREE = dataclasses.replace(
    LORENZ[0],
    name="lorenz-hyperpinn-free",
    stages=(paper.MultistepGaussNewton(600),),
)
JOBS = [(e, 0) for e in (*LORENZ, *ADAM, FREE)]
JOBS += [*((e, seed) for seed in (1, 2) for e in LORENZ), (FREE, 1)]
if common.QUICK:
    JOBS = [(common.tiny(LORENZ[0]), 0)]


def run(experiment: paper.LorenzExperiment, seed: int, folder: pathlib.Path) -> dict:
    """Trains one model, unless that was done before, and measures it."""
    name, out = experiment.name, folder / f"seed-{seed}"
    if not (out / f"{name}.json").exists():
        paper.train(experiment, seed=seed, out=out, resume=True)
    model = hpx.load(out / f"{name}.eqx")
    card = checkpoint.read_card(out / f"{name}.eqx")
    exact, test, truth = hpx.Lorenz(), *common.lorenz_cases()
    row = measure(model, test, truth)
    better = paper.WithoutBias(model)
    return {
        "name": name,
        "seed": seed,
        "seconds": sum(stage["seconds"] for stage in card["stages"]),
        "field": row.field,
        "field_without_bias": hpx.field_error(better, exact, test)[0],
        "mse_mean": float(np.mean(row.mse)),
        "mse_median": float(np.median(row.mse)),
        "failed": int(np.sum(~row.finished)),
        "valid_time": float(np.median(row.valid_time)),
        "behaviour_right": row.right(truth),
        "confusion": paper.confusion(paper.classify(truth), row.behaviours),
    }


def main() -> None:
    """Runs everything and writes the record after each run."""
    folder = common.folder(sys.argv[1] if len(sys.argv) > 1 else "trained/lorenz-seeds")
    runs = []
    for experiment, seed in JOBS:
        runs.append(run(experiment, seed, folder))
        print({k: v for k, v in runs[-1].items() if k != "confusion"}, flush=True)
        common.write("lorenz-seeds", {"runs": runs})
    print(json.dumps(runs, indent=1))


if __name__ == "__main__":
    main()
