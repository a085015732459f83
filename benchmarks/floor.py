"""How well can the main network solve one equation? Its floor, for each viscosity.

    python benchmarks/floor.py [--quick]

Continuation from ν = 0.1 to 0.001 with more Gauss-Newton steps than the recipe takes:
once with the plain network, once with the network that is odd in x by construction.
Prints a table and writes `book/data/burgers-floor.json`. About 5 minutes on two cores.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

jax.config.update("jax_enable_x64", True)

import common

import hyperpinn_eqx as hpx
from hyperpinn_eqx.paper import tables
from hyperpinn_eqx.paper.burgers import BURGERS

SHIPPED = BURGERS[0]
N_LAM, FIRST, STEPS, POINTS = (2, 1, 1, 20) if common.QUICK else (13, 400, 120, 2000)
KINDS = {"plain": False, "odd in x": True}
if common.QUICK:
    SHIPPED = common.tiny(SHIPPED)


def floor(symmetric: bool, nus: np.ndarray) -> dict:
    """The error of the main network at every ν of a path."""
    experiment = dataclasses.replace(SHIPPED, symmetric=symmetric, odd=symmetric)
    net_key, path_key = jr.split(jr.key(0))
    problem = hpx.Burgers()
    spec = hpx.MainNetSpec(
        experiment.main, problem.domain, odd="x" if symmetric else None
    )
    loss = dataclasses.replace(experiment.loss(), n_points=POINTS)
    begun = time.perf_counter()
    path = hpx.continuation(
        spec.init(key=net_key),
        loss,
        jnp.asarray(nus)[:, None],
        first=FIRST,
        steps=STEPS,
        key=path_key,
    ).model
    t, x = np.linspace(0, 1, 101), np.linspace(-1, 1, 256)
    errors = [
        hpx.on_grid(spec.unflatten(theta), t, x) - problem.exact(t[:, None], x, nu)
        for nu, theta in zip(nus, path.weights, strict=True)
    ]
    centred = path.weights - jnp.mean(path.weights, axis=0, keepdims=True)
    singular = np.linalg.svd(centred, compute_uv=False)
    return {
        "mse": [float(f"{np.mean(e**2):.4g}") for e in errors],
        "seconds": round(time.perf_counter() - begun),
        "singular_values": [float(f"{s:.4g}") for s in singular],
    }


def main() -> None:
    """Follows both paths, prints the table and writes the record."""
    nus = np.geomspace(0.1, 0.001, N_LAM)
    found = {kind: floor(symmetric, nus) for kind, symmetric in KINDS.items()}
    shown = [float(f"{nu:.4g}") for nu in nus]
    common.write("burgers-floor", {"nu": shown, "networks": found})
    lines = zip(shown, *(found[kind]["mse"] for kind in KINDS), strict=True)
    rows = ([f"{nu}", *(f"{e:.1e}" for e in errors)] for nu, *errors in lines)
    print(tables.markdown(["ν", *KINDS], rows, first="---:"))


if __name__ == "__main__":
    main()
