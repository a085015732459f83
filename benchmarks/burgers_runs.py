"""How good are the recipes for Burgers' equation, how fast, and does the seed matter?

    python benchmarks/burgers_runs.py [FOLDER] [--quick]

Trains from three seeds the shipped recipe of the HyperPINN and of the small PINN, and
that of the HyperPINN with plain networks, which are only told u(t, 0) = 0 (`wall`) or
nothing of the symmetry (`plain`); from one seed the large PINN, and all three models as
the paper says.
Weights go to FOLDER (`trained/burgers-runs` by default), where a run that is there
already is not repeated; the record goes to the screen and to
`book/data/burgers-runs.json`, which the book shows. About 70 minutes on two cores. A
run that was stopped goes on where it was.
"""

import dataclasses
import pathlib
import sys

import jax

jax.config.update("jax_enable_x64", True)

import common

from hyperpinn_eqx import paper
from hyperpinn_eqx.networks import checkpoint
from hyperpinn_eqx.paper import tables
from hyperpinn_eqx.paper.burgers import BURGERS, BURGERS_PAPER

HYPER, SMALL, LARGE = BURGERS
WALL = dataclasses.replace(HYPER, name="burgers-hyperpinn-wall", odd=False)
PLAIN = dataclasses.replace(WALL, name="burgers-hyperpinn-plain", symmetric=False)
JOBS = (
    *((e, seed) for e in (HYPER, SMALL, WALL, PLAIN) for seed in (0, 1, 2)),
    *((e, 0) for e in (LARGE, *BURGERS_PAPER)),
)
if common.QUICK:
    JOBS = tuple((common.tiny(e), 0) for e in (HYPER, BURGERS_PAPER[1]))


def run(experiment: paper.BurgersExperiment, seed: int, folder: pathlib.Path) -> dict:
    """Trains one model, unless that was done before, and reads its card."""
    name, recipe = experiment.name, experiment.recipe
    out = folder / f"seed-{seed}"
    file = out / f"{experiment.stem}.eqx"
    if not file.exists():
        paper.train(experiment, seed=seed, out=out, resume=True)
    card = checkpoint.read_card(file)
    curve = common.error_curve(card)
    passed = [s for s, e in curve if e <= 1.9e-5]
    return {
        "name": name,
        "recipe": recipe,
        "seed": seed,
        "seconds": curve[-1][0],
        "mse": card["error"]["mse"],
        "mse_at_0.001": card["error"]["mse_per_nu"][0],
        "seconds_to_the_papers": min(passed, default=None),
        "curve": curve,
        "nu": card["error"]["nu"],
        "mse_per_nu": card["error"]["mse_per_nu"],
    }


def main() -> None:
    """Runs everything and writes the record after each run."""
    folder = common.folder(sys.argv[1] if len(sys.argv) > 1 else "trained/burgers-runs")
    runs: list[dict] = []
    for experiment, seed in JOBS:
        runs.append(run(experiment, seed, folder))
        common.write("burgers-runs", {"runs": runs})
        what = experiment.name, experiment.recipe, seed
        print(*what, f"{runs[-1]['mse']:.1e}", flush=True)
    head = ["model", "recipe", "seed", "seconds", "MSE", "at ν = 0.001", "1.9e-5 after"]
    print()
    print(
        tables.markdown(
            head,
            (
                [
                    r["name"],
                    r["recipe"],
                    str(r["seed"]),
                    f"{r['seconds']:.0f}",
                    f"{r['mse']:.1e}",
                    f"{r['mse_at_0.001']:.1e}",
                    f"{s:.0f} s" if (s := r["seconds_to_the_papers"]) else "-",
                ]
                for r in runs
            ),
        )
    )


if __name__ == "__main__":
    main()
