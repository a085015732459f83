"""Five ways to let λ in, at equal size and time: which is best, and for what?

    python benchmarks/contest.py [--family F] [--model M] [--seed S] [--quick]

Concatenation, FiLM, a low-rank hypernetwork, a λ-dependent last layer, and the full
hypernetwork, on Burgers' equation (one λ) and on transport (three). Each has 2300
parameters in all, to 3 %, and a main network as large as that allows.

Everyone has the same equation, conditions, samplers, loss and seconds: `BUDGET` of one
core, compilation not counted, a fifth of them Adam in float32 and the rest Gauss-Newton
in float64. Seconds are the processor's: those of the clock, but for what else the
machine does. Depth and learning rate come from the same search for all: first the
better of two depths, then of two rates, in a quarter of the time, with a seed that the
contest does not use. Then three seeds.

A run goes to `trained/contest`, where one that is there already is not repeated: the
script can be stopped, and filters split it over several processes. Without filters it
measures times of prediction too. Record: `book/data/contest.json`. In all 45 minutes on
one core: `OPENBLAS_NUM_THREADS=1 taskset -c 0 python benchmarks/contest.py`.

What we expected, written down before the first run: FiLM and the low-rank hypernetwork
first, since every layer of theirs can follow λ and their main networks are larger than
the full hypernetwork's; concatenation close behind, with the dearest steps; the full
hypernetwork third or fourth, with the cheapest point; the last layer last by far, on
both families, since no few fixed functions make up a front or a pulse that changes its
width and place.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from common import QUICK, folder, medians, write

import hyperpinn_eqx as hpx
from hyperpinn_eqx import _files as files
from hyperpinn_eqx.paper import tables
from hyperpinn_eqx.paper.burgers import Odd

FOLDER = folder("trained/contest")
BUDGET, SEARCH = 40.0, 10.0
SEARCH_SEED, TOTAL = 9, 2300
SEEDS: tuple[int, ...] = (0, 1, 2)
DEPTHS: tuple[int, ...] = (4, 3)
RATES: tuple[float, ...] = (3e-3, 1e-3)

# From the shape of the main network (for the baseline without λ), λ and a key.
Build = Callable[[hpx.MainNetSpec, hpx.Box, jax.Array], hpx.AbstractModel]
ENTRANTS: dict[str, tuple[dict[int, int], Build]] = {
    # Width of the main network by its depth, and the rest of the model.
    "concatenation": (
        {4: 26, 3: 32},
        lambda main, lam, key: hpx.ConcatPINN(main, lam, key=key),
    ),
    "FiLM": (
        {4: 17, 3: 22},
        lambda main, lam, key: hpx.FiLM(main, lam, (16, 8), key=key),
    ),
    "low rank": (
        {4: 17, 3: 22},
        lambda main, lam, key: hpx.LowRank(main, lam, (16, 8), rank=6, key=key),
    ),
    "last layer": (
        {4: 22, 3: 26},
        lambda main, lam, key: hpx.LastLayer(main, lam, (16, 16), key=key),
    ),
    "hypernetwork": (
        {4: 8, 3: 8},
        lambda main, lam, key: hpx.HyperPINN(
            main, lam, (8, 8) if len(main.sizes) == 6 else (12, 11), key=key
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Family:
    """An equation, what is told about its solution, and where errors are measured."""

    problem: hpx.AbstractPDE
    odd: str | None
    factor: Callable | None
    held_out: np.ndarray

    def loss(self, **sampling: Any) -> hpx.PINNLoss:
        """The loss, the same for everyone."""
        return hpx.PINNLoss(self.problem, factor=self.factor, **sampling)

    def errors(self, model: hpx.AbstractModel) -> np.ndarray:
        """Relative L2 errors at the held-out λ."""
        found = hpx.family_error(model, self.problem, lams=self.held_out, n_t=51)
        return found.relative_l2


NU = np.geomspace(1e-3, 1e-1, 33)
FAMILIES = {
    "Burgers": Family(
        # At x = 0 an odd network may jump, which no collocation point sees.
        Odd(),
        "x",
        hpx.slope_weight("x"),
        np.sqrt(NU[1:] * NU[:-1]),
    ),
    "transport": Family(
        hpx.Transport(),
        None,
        None,
        np.asarray(hpx.latin_hypercube(hpx.Transport.parameters, 64, key=jr.key(11))),
    ),
}


if QUICK:
    BUDGET, SEARCH, SEEDS, DEPTHS, RATES = 0.1, 0.1, (0,), (3,), (3e-3,)
    FAMILIES = {"Burgers": FAMILIES["Burgers"]}
    ENTRANTS = {"hypernetwork": ENTRANTS["hypernetwork"]}


@dataclasses.dataclass(frozen=True)
class Job:
    """One training."""

    stage: str
    family: str
    model: str
    depth: int
    rate: float
    seed: int

    @property
    def file(self) -> pathlib.Path:
        """Where its result is kept."""
        name = "-".join(str(v) for v in dataclasses.astuple(self))
        return FOLDER / f"{name.replace(' ', '-')}.json"

    def build(self) -> hpx.AbstractModel:
        """The untrained model."""
        family, (width_of, build) = FAMILIES[self.family], ENTRANTS[self.model]
        sizes = (2, *self.depth * (width_of[self.depth],), 1)
        main = hpx.MainNetSpec(sizes, family.problem.bounds, odd=family.odd)
        model = build(main, family.problem.parameters, jr.key(self.seed))
        count = hpx.count_parameters(model)
        if abs(count / TOTAL - 1) > 0.03:
            raise ValueError(f"{self} has {count} parameters, expected {TOTAL} to 3 %")
        return model

    def run(self) -> dict:
        """Trains it, unless that was done before."""
        if self.file.exists():
            return json.loads(self.file.read_text("utf-8"))
        family, model = FAMILIES[self.family], self.build()
        budget = SEARCH if self.stage == "search" else BUDGET
        watch = Watch(family)
        trained = with_adam(self, family, model, watch, budget / 5)
        adam_steps = watch.steps
        trained = with_gauss_newton(self, family, trained, watch, budget)
        e = family.errors(trained)
        found = {
            **dataclasses.asdict(self),
            "parameters": hpx.count_parameters(model),
            "weights_at_a_point": hpx.count_parameters(trained(family.held_out[0])),
            "seconds": round(watch.seconds, 1),
            "adam_steps": adam_steps,
            "gauss_newton_steps": watch.steps,
            "median": float(f"{np.median(e):.4g}"),
            "mean": float(f"{np.mean(e):.4g}"),
            "errors": [float(f"{v:.3g}") for v in e],
            "curve": watch.curve,
        }
        FOLDER.mkdir(parents=True, exist_ok=True)
        files.write_json(self.file, found)
        return found


class Watch:
    """Counts steps and their seconds; measures the error now and then; ends in time."""

    def __init__(self, family: Family):
        self.family, self.seconds, self.next = family, 0.0, 0.0
        self.steps = 0
        self.curve: list[list[float]] = []

    def until(self, budget: float, steps: int = 1) -> Callable:
        """What a training calls after so many steps, from now to that second."""
        self.steps, self.budget, self.mark = 0, budget, time.process_time()

        def look(model: hpx.AbstractModel, _: float) -> dict:
            now = time.process_time()
            self.steps += steps
            # The first steps are not charged: they compile.
            if self.steps > steps:
                self.seconds += now - self.mark
            if self.seconds >= self.next:
                self.next = 1.3 * self.seconds + 1
                e = np.median(self.family.errors(model))
                self.curve.append([round(self.seconds, 1), float(f"{e:.3g}")])
            self.mark = time.process_time()
            return {"stop": self.seconds >= self.budget}

        return look


def with_adam(
    job: Job, family: Family, model: hpx.AbstractModel, watch: Watch, budget: float
) -> hpx.AbstractModel:
    """Adam in float32."""
    loss = family.loss(
        n_lam=32, n_points=64, sample_lam=hpx.log_uniform, adaptive=False
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(job.rate))
    result = hpx.fit(
        hpx.cast(model, jnp.float32),
        loss,
        optimiser,
        steps=10**6,
        key=jr.key(100 + job.seed),
        chunk=10,
        progress=False,
        callback=watch.until(budget, 10),
    )
    return hpx.cast(result.model, jnp.float64)


def with_gauss_newton(
    job: Job, family: Family, model: hpx.AbstractModel, watch: Watch, budget: float
) -> hpx.AbstractModel:
    """Gauss-Newton in float64."""
    train = partial(
        hpx.gauss_newton,
        loss=family.loss(n_lam=32, n_points=200),
        rank=32,
        damping=1e-3,
        key=jr.key(200 + job.seed),
        progress=False,
    )
    train(model, steps=2)  # compiles what comes after the first step
    return train(model, steps=10**6, callback=watch.until(budget)).model


def chosen(family: str, model: str) -> tuple[int, float]:
    """The depth with the least median error in the search, then the learning rate."""

    def median(depth: int, rate: float) -> float:
        return Job("search", family, model, depth, rate, SEARCH_SEED).run()["median"]

    depth = min(DEPTHS, key=lambda depth: median(depth, RATES[0]))
    return depth, min(RATES, key=lambda rate: median(depth, rate))


def contest(family: str, model: str, seed: int) -> Job:
    """The run of an entrant: with what its search chose."""
    return Job("contest", family, model, *chosen(family, model), seed)


def times() -> list[dict]:
    """Of what each entrant has become: time of a point and of a new λ, in float32."""
    at_points = jax.jit(lambda u, points: hpx.jets(u, points, ()).value)
    at_lam = jax.jit(lambda model, lam: model(lam))
    found, n = [], 10_000
    for family in FAMILIES:
        domain = FAMILIES[family].problem.bounds
        points = hpx.uniform(domain, (n,), key=jr.key(0)).astype(jnp.float32)
        lam = jnp.asarray(FAMILIES[family].held_out[0])
        calls = {}
        for way in ENTRANTS:
            model = hpx.cast(contest(family, way, SEEDS[0]).build(), jnp.float32)
            calls["point", way] = partial(at_points, model(lam), points)
            calls["lam", way] = partial(at_lam, model, lam)
        taken = medians(calls, 200)
        found += [
            {
                "family": family,
                "model": way,
                "nanoseconds_a_point": float(f"{1e9 * taken['point', way] / n:.3g}"),
                "microseconds_a_lam": float(f"{1e6 * taken['lam', way]:.3g}"),
            }
            for way in ENTRANTS
        ]
    return found


def row(found: list[dict]) -> list[str]:
    """A line of the table: the seeds of one entrant."""
    errors = (sorted(r[k] for r in found) for k in ("median", "mean"))
    return [
        found[0]["model"],
        str(found[0]["parameters"]),
        str(found[0]["weights_at_a_point"]),
        *(", ".join(f"{e:.1e}" for e in each) for each in errors),
        ", ".join(str(r["gauss_newton_steps"]) for r in found),
    ]


def main() -> None:
    """Runs what the filters let through, prints the tables and writes the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--model", choices=ENTRANTS)
    parser.add_argument("--seed", type=int, choices=SEEDS)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    jobs = [
        (family, way, seed)
        for family, way, seed in itertools.product(FAMILIES, ENTRANTS, SEEDS)
        if args.family in (None, family)
        and args.model in (None, way)
        and args.seed in (None, seed)
    ]
    runs = []
    for job in jobs:
        runs.append(contest(*job).run())
        print(*job, f"median {runs[-1]['median']:.1e}", flush=True)

    for family in FAMILIES:
        of_family = [r for r in runs if r["family"] == family]
        rows = [
            row(mine)
            for way in ENTRANTS
            if (mine := [r for r in of_family if r["model"] == way])
        ]
        print(f"\n{family}: relative L2 error at held-out λ\n")
        head = ["way", "parameters", "at a point", "medians", "means", "steps"]
        print(tables.markdown(head, rows))
    if len(jobs) < len(FAMILIES) * len(ENTRANTS) * len(SEEDS):
        return
    search = [json.loads(f.read_text("utf-8")) for f in FOLDER.glob("search-*.json")]
    shown = ("family", "model", "depth", "rate", "median")
    record = {
        "seconds": BUDGET,
        "search_seconds": SEARCH,
        "nu": [float(f"{nu:.4g}") for nu in FAMILIES["Burgers"].held_out],
        "runs": runs,
        "search": sorted(({k: r[k] for k in shown} for r in search), key=str),
        "times": times(),
    }
    write("contest", record)


if __name__ == "__main__":
    main()
