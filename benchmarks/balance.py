"""What is it worth that `train_family` divides each residual by its own size?

    python benchmarks/balance.py [--quick]

`dimensionless` divides what the equation and each condition return by the typical size
of its terms, or by its source where that is larger; then all have the weight 1. Here
beside it: the same networks, points and steps with the weight 1 for each as its author
wrote it. Expected, before it was run: where terms are of order one anyway (Allen-Cahn,
Burgers, Klein-Gordon) no difference; where they are not (Poisson, the wave), several
times less error. In no family should the rule cost more than chance does.

A short training, which tells how fast, not how far: 500 steps of Adam and 60 of
Gauss-Newton with 16 λ. Two seeds; the error is the median over 33 held-out λ of the
relative L2 error, for a system the mean square over its fields.

Record: `book/data/balance.json` (not with --quick). Half an hour on two cores. Set
OPENBLAS_NUM_THREADS=1, see `growth.py`.
"""

import dataclasses
import statistics
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from common import QUICK, told, write

import hyperpinn_eqx as hpx
from hyperpinn_eqx import paper
from hyperpinn_eqx.paper.families import held_out
from hyperpinn_eqx.paper.tables import markdown
from hyperpinn_eqx.physics.units import Dimensionless, dimensionless
from hyperpinn_eqx.recipes.family import untrained, with_main

ADAM, NEWTON, N_LAM, SEEDS = (2, 1, 2, 1) if QUICK else (500, 60, 16, 2)
FAMILIES = paper.FAMILIES[:2] if QUICK else paper.FAMILIES


def error(problem: hpx.AbstractPDE, units: Dimensionless, *, seed: int) -> float:
    """The median held-out error after a short training in these units."""
    keys = jr.split(jr.key(seed), 3)
    physical = untrained(problem, None, None, key=keys[0])
    shape = hpx.MainNetSpec(physical.main.sizes, units.domain)
    loss = hpx.PINNLoss(units, n_lam=N_LAM, n_conditions=50)
    first = dataclasses.replace(
        loss, n_points=64, sample_lam=hpx.log_uniform, adaptive=False
    )
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, ADAM))
    start = hpx.cast(with_main(physical, shape), jnp.float32)
    silent: dict[str, Any] = {"progress": False}
    adam = hpx.fit(start, first, optimiser, steps=ADAM, key=keys[1], **silent)
    result = hpx.gauss_newton(
        hpx.cast(adam.model, jnp.float64),
        loss,
        steps=NEWTON,
        damping=1e-3,
        rank=physical.main.size // 6,
        key=keys[2],
        **silent,
    )
    model = with_main(result.model, physical.main)
    n_x = 41 if len(problem.domain) == 2 else 21
    lams = held_out(problem.parameters)[: 3 if QUICK else 33]
    found = hpx.family_error(model, problem, lams=lams, n_t=21, n_x=n_x)
    return float(np.median(found.relative_l2))


def main() -> None:
    """Prints one table, and writes the record."""
    record: dict[str, dict[str, list[float]]] = {}
    for family in FAMILIES:
        units = dimensionless(family.problem)
        ones = {name: (1.0,) * len(sizes) for name, sizes in units.sizes.items()}
        ways = {"own size": units, "equal": dataclasses.replace(units, sizes=ones)}
        name = family.name.removesuffix("-hyperpinn")
        record[name] = {
            way: [error(family.problem, by, seed=seed) for seed in range(SEEDS)]
            for way, by in ways.items()
        }
        print(name, record[name], flush=True)
        write("balance", {"families": record})
    print(f"\n{told()}\n")
    rows = []
    for name, found in record.items():
        means = [statistics.geometric_mean(e) for e in found.values()]
        rows.append([name, *(f"{e:.1e}" for e in means), f"{means[1] / means[0]:.2g}"])
    print(markdown(["family", "own size", "equal", "ratio"], rows))


if __name__ == "__main__":
    main()
