"""Conditions that are built into the main network, against conditions in the loss.

    python benchmarks/hard.py [--quick]

The same networks, points and steps, once with conditions as terms of the loss, and once
with a main network g(x, λ) + d(x, λ) N(x) that meets them by construction; what it
meets has the weight 0 then. For Burgers' equation on a ring that is the initial state,
for the Klein-Gordon equation the initial state, the initial velocity and the walls, and
for Poisson's equation all four sides of the square.

500 steps of Adam and 150 of Gauss-Newton with 16 λ; two seeds. The error is the median
over 33 held-out λ of the relative L2 error; the seconds are those of these short
trainings. Expected, before it was run: less error everywhere, since nothing has to be
balanced, and for Poisson's equation by a factor of ten, where the sides are most of
what there is to learn. It came out the other way: no gain in the first two families,
and for Poisson's equation a fit of the batch alone: (u - g) / d is harder than u.

Record: `book/data/hard.json` (not with --quick). A quarter of an hour on one core:
`OPENBLAS_NUM_THREADS=1 taskset -c 0 python benchmarks/hard.py`.
"""

import statistics
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from common import QUICK, told, write
from jaxtyping import Array, Float

import hyperpinn_eqx as hpx
from hyperpinn_eqx.paper.families import held_out
from hyperpinn_eqx.paper.tables import markdown

ADAM, NEWTON, N_LAM, SEEDS = (2, 1, 2, (0,)) if QUICK else (500, 150, 16, (0, 1))
Point = Float[Array, " 2"]


def wave(tx: Point, lam: Float[Array, " 2"]) -> tuple[Array, Array]:
    """The initial state, and then the time."""
    t, x = tx
    return -lam[0] * jnp.sin(jnp.pi * (x - lam[1])), t


def meson(tx: Point, lam: Float[Array, " 3"]) -> tuple[Array, Array]:
    """At rest at the start, and x cos t at the walls.

    Not x cos t itself, which solves the equation for some λ.
    """
    t, x = tx
    return x + (jnp.cos(t) - 1) * x**3, t**2 * (1 - x**2) / 5


def square(xy: Point, lam: Float[Array, " 2"]) -> tuple[Array, Array]:
    """Between the values at the four sides."""
    x, y = xy
    a, b = lam
    p, q = x / jnp.pi, y / jnp.pi
    sides = (1 - p + p * jnp.cos(a * jnp.pi)) * (
        jnp.sin(b * y) - q * jnp.sin(b * jnp.pi)
    )
    return sides + q * jnp.cos(a * x) * jnp.sin(b * jnp.pi), 16 * p * q * (1 - p) * (
        1 - q
    )


FAMILIES: dict[str, tuple[Any, Callable, tuple[str, ...]]] = {
    "Burgers on a ring": (hpx.BurgersWave(), wave, ("start",)),
    "Klein-Gordon": (hpx.KleinGordon(), meson, ("start", "at_rest", "walls")),
    "Poisson": (hpx.Poisson(), square, ("walls",)),
}


def train(problem: Any, *, seed: int, **settings: Any) -> dict[str, float]:
    """The median held-out error after a short training, and its seconds."""
    result = hpx.train_family(
        problem,
        adam_steps=ADAM,
        newton_steps=NEWTON,
        n_lam=N_LAM,
        key=jr.key(seed),
        progress=False,
        **settings,
    )
    lams = held_out(problem.parameters)[: 3 if QUICK else 33]
    found = hpx.family_error(result.model, problem, lams=lams, n_t=41, n_x=41)
    return {
        "error": float(np.median(found.relative_l2)),
        "seconds": round(result.seconds, 1),
    }


def main() -> None:
    """Prints one table, and writes the record."""
    record = {}
    for name, (problem, form, met) in FAMILIES.items():
        ways: dict[str, dict[str, Any]] = {
            "in the loss": {},
            "built in": {"hard": form, "weights": dict.fromkeys(met, 0.0)},
        }
        record[name] = {
            way: [train(problem, seed=seed, **settings) for seed in SEEDS]
            for way, settings in ways.items()
        }
        print(name, record[name], flush=True)
    write("hard", {"families": record})
    print(f"\n{told()}\n")
    rows = []
    for name, found in record.items():
        soft, hard = (
            statistics.geometric_mean(run["error"] for run in runs)
            for runs in found.values()
        )
        times = [statistics.mean(run["seconds"] for run in r) for r in found.values()]
        share = f"{hard / soft:.2g}", f"{times[1] / times[0]:.2g}"
        rows.append([name, f"{soft:.1e}", f"{hard:.1e}", *share])
    head = ["family", "in the loss", "built in", "ratio", "ratio of times"]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
