"""How does the cost of training grow with the work?

    python benchmarks/growth.py [--quick]

Where other work runs on the same cores, set OPENBLAS_NUM_THREADS=1: on a CPU, small
factorisations lose far more to waiting for each other's threads than they gain.

Time of one gradient of the loss in float32, as Adam needs it, and of one Gauss-Newton
step in float64: for more ν, more collocation points for each, and a wider main network,
one at a time. The exponent is the slope from the last size but one to the last on
logarithmic axes: 1 where twice the work takes twice the time.

Initial and boundary points, 100 for each ν, do not grow with the collocation points.
A Gauss-Newton step is one Jacobian, one solve, and one trial of the result, or
a few where the first one fails.
Record: `book/data/growth.json` (not with --quick). A few minutes on two cores.
"""

import math
from collections.abc import Callable

import jax
import jax.random as jr
import numpy as np
from common import QUICK, medians, text, told, write

import hyperpinn_eqx as hpx
from hyperpinn_eqx.paper.tables import markdown

FIXED = {"ν": 64, "points for each ν": 64, "width": 8}
Sizes = dict[str, tuple[int, ...]]
GRADIENT: Sizes = {
    "ν": (16, 32, 64, 128, 256),
    "points for each ν": (16, 64, 256, 1024),
    "width": (8, 16, 32, 64),
}
# Smaller than in a training: the largest has to fit into memory.
FIXED_STEP = {"ν": 16, "points for each ν": 200, "width": 8}
STEP: Sizes = {"ν": (8, 16, 32, 64), "points for each ν": (100, 200, 400, 800)}
DEPTH, ROUNDS, STEPS = 6, 20, 6
if QUICK:
    DEPTH, ROUNDS, STEPS = 2, 3, 3
    GRADIENT, STEP = {"width": (4, 8)}, {"points for each ν": (20, 40)}
    FIXED["ν"] = FIXED_STEP["ν"] = 2

problem = hpx.Burgers()
loss = hpx.PINNLoss(problem, n_conditions=50)


def untrained(width: int) -> hpx.HyperPINN:
    """The paper's HyperPINN with a main network of another width."""
    main = hpx.MainNetSpec((2, *DEPTH * (width,), 1), problem.domain)
    return hpx.HyperPINN(main, problem.parameters, (32, 32, 32, 16), key=jr.key(0))


@jax.jit
def gradient(model: hpx.HyperPINN, batch: hpx.Batch) -> hpx.HyperPINN:
    """What one step of Adam asks for."""
    return jax.grad(lambda model: loss(model, batch).total)(model)


def one_gradient(n_nu: int, n_points: int, width: int) -> Callable:
    """One gradient, ready to be timed."""
    model = untrained(width)
    lams = hpx.log_uniform(problem.parameters, n_nu, key=jr.key(1))
    points = hpx.uniform(problem.domain, (n_nu, n_points), key=jr.key(2))
    batch = loss.sample(model, key=jr.key(3), lam=lams, points=points)
    return lambda: gradient(model, batch)


def one_step(n_nu: int, n_points: int, width: int) -> float:
    """Median seconds of a Gauss-Newton step, all on one batch, the first left out."""
    loss = hpx.PINNLoss(
        problem,
        n_lam=n_nu,
        n_points=n_points,
        n_conditions=50,
        factor=hpx.slope_weight("x"),
    )
    result = hpx.gauss_newton(
        untrained(width),
        loss,
        steps=STEPS,
        redraw=STEPS,
        # So large that the first trial of a step lowers the loss.
        damping=1.0,
        key=jr.key(4),
        progress=False,
    )
    return float(np.median(np.diff(result.history["seconds"])))


def sweep(sizes: dict, fixed: dict, measure: Callable) -> dict[str, dict[int, float]]:
    """Seconds as one quantity grows and the others stay."""
    return {
        name: measure({n: tuple((fixed | {name: n}).values()) for n in values})
        for name, values in sizes.items()
    }


def gradients(work: dict[int, tuple]) -> dict[int, float]:
    """Seconds of a gradient for each size."""
    return medians({n: one_gradient(*w) for n, w in work.items()}, ROUNDS)


def steps(work: dict[int, tuple]) -> dict[int, float]:
    """Seconds of a Gauss-Newton step for each size."""
    with jax.enable_x64(True):
        return {n: one_step(*w) for n, w in work.items()}


def show(title: str, fixed: dict, found: dict[str, dict[int, float]]) -> None:
    """Prints one table."""
    others = ", ".join(f"{name} = {n}" for name, n in fixed.items())
    print(f"\n{title}; what does not grow: {others}\n")
    rows = []
    for name, seconds in found.items():
        (n, before), (m, after) = list(seconds.items())[-2:]
        slope = math.log(after / before) / math.log(m / n)
        cells = ", ".join(f"{n}: {text(t)}" for n, t in seconds.items())
        rows.append([name, cells, f"{slope:.2f}"])
    print(markdown(["what grows", "size: median time", "exponent"], rows))


def main() -> None:
    """Times everything, prints the tables and writes the record."""
    print(told())
    found = {"gradient": sweep(GRADIENT, FIXED, gradients)}
    show("One gradient, float32", FIXED, found["gradient"])
    found["step"] = sweep(STEP, FIXED_STEP, steps)
    show("One Gauss-Newton step, float64", FIXED_STEP, found["step"])
    write("growth", {"fixed": FIXED, "fixed_step": FIXED_STEP, **found})


if __name__ == "__main__":
    main()
