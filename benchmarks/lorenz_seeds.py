"""Do the Lorenz results depend on the seed, on Gauss-Newton, on the trunk?

    python benchmarks/lorenz_seeds.py [FOLDER] [--quick]

Trains the three models from three seeds each; once by Adam alone; and the HyperPINN
with its trunk free. Measures all of them on the test set. Weights go to FOLDER
(`trained/lorenz-seeds` by default), where a run that is there already is not repeated;
the record goes to the screen and to `book/data/lorenz-seeds.json`, which the chapter
shows. About 40 minutes on two cores. A run that was stopped goes on where it was.
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
from hyperpinn_eqx import checkpoint, experiments, lorenz_tables
from hyperpinn_eqx.experiments.lorenz import LORENZ, LORENZ_PAPER

# What the shipped recipe leaves out: Gauss-Newton, and the frozen trunk.
ADAM = [dataclasses.replace(e, name=f"{e.name}-adam") for e in LORENZ_PAPER]
FREE = dataclasses.replace(
    LORENZ[0],
    name="lorenz-hyperpinn-free",
    stages=(experiments.MultistepGaussNewton(600),),
)
JOBS = [(e, 0) for e in (*LORENZ, *ADAM, FREE)]
JOBS += [*((e, seed) for seed in (1, 2) for e in LORENZ), (FREE, 1)]
if common.QUICK:
    JOBS = [(common.tiny(LORENZ[0]), 0)]
    common.short_lorenz_runs()


def run(
    experiment: experiments.LorenzExperiment, seed: int, folder: pathlib.Path
) -> dict:
    """Trains one model, unless that was done before, and measures it."""
    name, out = experiment.name, folder / f"seed-{seed}"
    if not (out / f"{name}.json").exists():
        experiments.EXPERIMENTS[name] = experiment
        experiments.train(name, seed=seed, out=out, resume=True)
    model = hpx.load(out / f"{name}.eqx")
    card = checkpoint.read_card(out / f"{name}.eqx")
    row = lorenz_tables.measure(model)
    better = lorenz_tables.WithoutBias(model)
    truth = hpx.classify(lorenz_tables.true_run())
    exact, test = hpx.Lorenz(), experiments.test_set()
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
        "behaviour_right": row.right,
        "confusion": hpx.confusion(truth, row.behaviours),
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
