"""What is it worth that `train_family` divides each residual by its own size?

    python benchmarks/balance.py [--family F] [--quick]

`dimensionless` divides what the equation and each condition return by the typical size
of its terms, for a field that is half a wave over each range; then all have the weight
1. Here beside it: weights that undo this, so that each term counts as its author wrote
it (for an equation of several numbers, on the average over them). Expected: where terms
are of order one anyway (Allen-Cahn, Burgers, Klein-Gordon) no difference; where they
are not (Poisson, the wave), several times less error. In no family should the rule cost
more than chance does.

The outcome decided the rule. With an earlier one, fields as steep as half a range over
the range and sizes at least those of the source, Poisson's equation had an error ten
times that of the equations as written, and the ring stayed where it began.

A short training, which tells how fast, not how far: 500 steps of Adam and 60 of
Gauss-Newton with 16 λ. The error is the median over 33 held-out λ of the relative L2
error, for a system the mean square over its fields.

Record: `book/data/balance.json` (not with --quick), a family at a time. Half an hour on
one core: `OPENBLAS_NUM_THREADS=1 taskset -c 0 python benchmarks/balance.py`.
"""

import argparse
import json

import jax.random as jr
import numpy as np
from common import DATA, QUICK, told, write

import hyperpinn_eqx as hpx
from hyperpinn_eqx import paper
from hyperpinn_eqx.paper.families import held_out
from hyperpinn_eqx.paper.tables import markdown
from hyperpinn_eqx.physics.units import dimensionless

ADAM, NEWTON, N_LAM = (2, 1, 2) if QUICK else (500, 60, 16)
FAMILIES = {f.name.removesuffix("-hyperpinn"): f for f in paper.FAMILIES}


def error(problem: hpx.AbstractPDE, weights: dict[str, float]) -> float:
    """The median held-out error after a short training with these weights."""
    result = hpx.train_family(
        problem,
        adam_steps=ADAM,
        newton_steps=NEWTON,
        n_lam=N_LAM,
        weights=weights,
        key=jr.key(0),
        progress=False,
    )
    n_x = 41 if len(problem.domain) == 2 else 21
    lams = held_out(problem.parameters)[: 3 if QUICK else 33]
    found = hpx.family_error(result.model, problem, lams=lams, n_t=21, n_x=n_x)
    return float(np.median(found.relative_l2))


def known() -> dict[str, dict[str, float]]:
    """The record so far."""
    path = DATA / "balance.json"
    if QUICK or not path.exists():
        return {}
    return json.loads(path.read_text())["families"]


def main() -> None:
    """Prints one table, and writes the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args().family
    for name in [chosen] if chosen else [*FAMILIES][: 2 if QUICK else None]:
        problem = FAMILIES[name].problem
        sizes = dimensionless(problem).sizes
        by_author = {term: float(np.mean(np.square(s))) for term, s in sizes.items()}
        found = {
            "own size": error(problem, {}),
            "as written": error(problem, by_author),
        }
        print(name, by_author, found, flush=True)
        # Read again: another process may have added to it meanwhile.
        record = known() | {name: found}
        record = {n: record[n] for n in FAMILIES if n in record}
        write("balance", {"families": record})
    print(f"\n{told()}\n")
    rows = []
    for name, (own, written) in ((n, e.values()) for n, e in record.items()):
        rows.append([name, f"{own:.1e}", f"{written:.1e}", f"{written / own:.2g}"])
    print(markdown(["family", "own size", "as written", "ratio"], rows))


if __name__ == "__main__":
    main()
