"""How accurate is a HyperPINN of jinns after the wall time that ours takes?

    python benchmarks/jinns_accuracy.py [--seconds 120] [--only METHOD] [--quick]

The networks of `burgers-hyperpinn`, the same scaling of t, x and log ν, and the same
symmetry; jinns' own loss, sampler, initialisation, optimisers and `jinns.solve`. Every
method gets the same wall time; compiling is not counted, but told. The error is that
of the book's tables: weights are copied into our model, which is checked to be the same
function. Our own row is read from the card of the shipped weights: `train` makes it
again, compilation counted. The first run installs jinns from PyPI into `.venv-jinns`.
The record, with the error at every fifth of the time: `book/data/jinns-accuracy.json`.
"""

import jinns_setup  # isort: skip

import argparse
import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import jinns
import optax
from common import QUICK, error_curve, told, write

import hyperpinn_eqx as hpx
from hyperpinn_eqx import paper
from hyperpinn_eqx.networks.model import cast
from hyperpinn_eqx.paper.tables import markdown

OURS = "burgers-hyperpinn"
PARTS = 1 if QUICK else 5


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a training by jinns.

    Attributes:
        optimiser: "Adam", "SSBroyden" or "natural gradient".
        share: of the wall time.
        pairs: of ν with a collocation, an initial and two boundary points, in a batch.
        pool: how many pairs batches are taken from; as many as `pairs` for one batch.
        data: the weight of the initial and of the boundary term.
        chunk: how many steps one call of `jinns.solve` makes.
        float64: the precision.
        rate: Adam's first learning rate; a cosine takes it to zero by the clock.
    """

    optimiser: str
    share: float = 1.0
    pairs: int = 512
    pool: int = 2**16
    data: float = 30.0
    chunk: int = 1
    float64: bool = True
    rate: float | None = None


# The best of what short trials found.
ADAM = Phase("Adam", chunk=100, float64=False, rate=3e-3)
HALF = dataclasses.replace(ADAM, share=0.5)
# SSBroyden compares the gradients of successive steps, so these share their points.
SSBROYDEN = Phase("SSBroyden", share=0.5, pairs=4096, pool=4096, chunk=2)
METHODS = {
    "Adam": (ADAM,),
    "Adam, SSBroyden": (HALF, SSBROYDEN),
    "Adam, natural gradient": (HALF, Phase("natural gradient", share=0.5)),
}
if QUICK:
    few: dict[str, Any] = {"pairs": 8, "pool": 8, "chunk": 2}
    METHODS = {
        name: tuple(dataclasses.replace(phase, **few) for phase in phases)
        for name, phases in METHODS.items()
    }


def prepare(phase: Phase, u: Any, params: Any, data: tuple) -> tuple[Any, Any]:
    """The optimiser's first state, and one call of `jinns.solve`, compiled."""
    extra = None
    if phase.optimiser == "Adam":
        optimiser = optax.inject_hyperparams(optax.adam)(learning_rate=phase.rate)
    elif phase.optimiser == "SSBroyden":
        optimiser, named = jinns_setup.ssbroyden(), jinns.solver.GetJinnsVariableName
        extra = {name: named(name) for name in ("loss", "batch")}
        extra["value"] = named("train_loss_value")
    else:
        # All as jinns has it, but that the line search prints nothing.
        search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=15)
        optimiser = jinns.optimizers.vanilla_ngd(linesearch=search)
    loss = jinns_setup.loss(u, params, data=phase.data)

    def chunk(params: Any, state: Any, data: tuple) -> tuple:
        found = jinns.solve(
            n_iter=phase.chunk,
            init_params=params,
            data=data[0],
            param_data=data[1],
            loss=loss,
            optimizer=optimiser,
            opt_state=state,
            extra_optax_args_and_kwargs=extra,
            print_loss_every=phase.chunk,
            verbose=False,
            # We compile it ourselves, once for all calls.
            ahead_of_time=False,
        )
        return found[0], found[5], (found[3], found[9])

    state = jax.jit(optimiser.init)(params)
    return state, jax.jit(chunk).lower(params, state, data).compile()


def train(phases: tuple[Phase, ...], seconds: float, key: jax.Array) -> dict[str, Any]:
    """Trains by jinns: the error at every part of the time, steps, and compile time."""
    model: Any = paper.EXPERIMENTS[OURS].build(key=key)
    u, weights = jinns_setup.network(model, key=key)
    clock = compiling = share = 0.0
    steps, curve, next_part = [], [], 1
    for i, phase in enumerate(phases):
        share += phase.share
        steps.append(0)
        with jax.enable_x64(phase.float64):
            data = jinns_setup.sampler(
                phase.pairs,
                phase.pool,
                half=model.main.odd is not None,
                key=jr.fold_in(key, i),
            )
            weights = cast(weights, jnp.result_type(float))
            nu = data[1].get_batch()[1].nu
            params = jinns_setup.Params(weights, {"nu": nu})
            start = time.perf_counter()
            state, chunk = prepare(phase, u, params, data)
            compiling += time.perf_counter() - start
            begun, end = clock, share * seconds
            while clock < end:
                if phase.rate is not None:
                    part = (clock - begun) / (end - begun)
                    rate = phase.rate * (1 + math.cos(math.pi * part)) / 2
                    state.hyperparams["learning_rate"] = jnp.asarray(rate, nu.dtype)
                start = time.perf_counter()
                params, state, data = jax.block_until_ready(chunk(params, state, data))
                clock += time.perf_counter() - start
                steps[-1] += phase.chunk
                weights = params.nn_params
                if clock >= seconds * next_part / PARTS:
                    next_part = int(PARTS * clock / seconds) + 1
                    ours = jinns_setup.into(model, u, weights)
                    mse = hpx.family_error(ours, hpx.Burgers()).mean
                    curve.append((round(clock, 1), float(f"{mse:.3g}")))
    return {
        "steps": steps,
        "compile_seconds": round(compiling),
        "curve": curve,
        "settings": [dataclasses.asdict(phase) for phase in phases],
    }


def ours(seconds: float) -> dict[str, Any]:
    """The training of the shipped weights, as their card tells it, up to that time."""
    points = error_curve(hpx.load_card(OURS))
    # The last error known at each part of the time.
    marks = [seconds * (i + 1) / PARTS for i in range(PARTS)]
    known = [[point for point in points if point[0] <= mark] for mark in marks]
    return {"curve": [early[-1] for early in known if early]}


def main() -> None:
    """Trains by every method, prints a table and, if it is whole, writes the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0 if QUICK else 120.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(METHODS))
    options = parser.parse_args()
    print(f"{told()}, jinns {jinns_setup.JINNS}\n")
    rows = []
    for name in [options.only] if options.only else METHODS:
        found = train(METHODS[name], options.seconds, jr.key(options.seed))
        rows.append({"method": f"jinns, {name}", **found})
        print(f"{name}: {found['steps']} steps, {found['curve']}", flush=True)
    rows.append({"method": "hyperpinn_eqx", **ours(options.seconds)})
    if not options.only:
        about = {"versions": jinns_setup.versions(), "seed": options.seed}
        write("jinns-accuracy", {**about, "rows": rows})
    cells = [
        [row["method"], f"{s:.0f}", f"{mse:.1e}"]
        for row in rows
        for s, mse in row["curve"]
    ]
    print(markdown(["method", "seconds", "MSE"], cells))


if __name__ == "__main__":
    main()
