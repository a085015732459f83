"""Do the Lorenz results depend on the seed, on Gauss-Newton, on the trunk?

    python benchmarks/lorenz_seeds.py [FOLDER]

Trains the three models from three seeds each; once by Adam alone; and the HyperPINN
with its trunk free. Measures all of them on the test set. Weights go to FOLDER
(`trained/lorenz-seeds` by default), where a run that is there already is not repeated;
the record goes to the screen and to `book/data/lorenz-seeds.json`, which the chapter
shows. About 40 minutes on two cores.
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

NAMES = ("lorenz-hyperpinn", "lorenz-small", "lorenz-large")
# What the shipped recipe leaves out: Gauss-Newton, and the frozen trunk.
OTHERS = {
    f"{name}-adam": dataclasses.replace(
        experiments.RECIPES["paper"][name], name=f"{name}-adam"
    )
    for name in NAMES
}
OTHERS["lorenz-hyperpinn-free"] = dataclasses.replace(
    experiments.EXPERIMENTS["lorenz-hyperpinn"],
    name="lorenz-hyperpinn-free",
    stages=(experiments.MultistepGaussNewton(600),),
)


def run(name: str, seed: int, folder: pathlib.Path) -> dict:
    """Trains one model, unless that was done before, and measures it."""
    out = folder / f"seed-{seed}"
    if not (out / f"{name}.json").exists():
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
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "trained/lorenz-seeds")
    experiments.EXPERIMENTS.update(OTHERS)
    runs = []
    jobs = [(n, 0) for n in (*NAMES, *OTHERS)]
    jobs += [(n, s) for s in (1, 2) for n in NAMES] + [("lorenz-hyperpinn-free", 1)]
    for name, seed in jobs:
        runs.append(run(name, seed, folder))
        print({k: v for k, v in runs[-1].items() if k != "confusion"}, flush=True)
        common.write("lorenz-seeds", {"runs": runs})
    print(json.dumps(runs, indent=1))


if __name__ == "__main__":
    main()
