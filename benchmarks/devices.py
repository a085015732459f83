"""What does one more λ cost, and what does a second device save?

    python benchmarks/devices.py [--quick]

Expected, before it was run. The cost of a gradient for each ν is flat, once there are
so many that fixed costs do not count (before the losses went through ν in blocks, it
rose from 33 µs for 256 ν to 70 µs for 1024 and 4096), and a second device halves it,
less what one device makes of both cores already. A Gauss-Newton step is a sum. The
Jacobians of each ν are split over the devices, and their cost for each ν is flat. The
dense system has as many rows as all ν keep together; to fill it grows with the square
of that number, and to solve it, on every device, with the cube. So the cost for each ν
is flat only while the Jacobians dominate, or where more ν keep fewer rows each, the
same number in all.

The paper's HyperPINN for Burgers' equation: a gradient in float32 with 64 points for
each ν, and a Gauss-Newton step in float64 with 200, by `gauss_newton` itself. On a
computer without two GPUs, devices are two CPU devices that JAX makes of one.
Set OPENBLAS_NUM_THREADS=1, see `growth.py`.

Record: `book/data/devices.json` (not with --quick). A few minutes on two cores.
"""

import functools
import statistics
from collections.abc import Callable

import jax

jax.config.update("jax_num_cpu_devices", 2)

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from common import QUICK, medians, text, timed, told, write

import hyperpinn_eqx as hpx
from hyperpinn_eqx import _blocks as devices
from hyperpinn_eqx.paper.tables import markdown
from hyperpinn_eqx.training import linear_system

POINTS, STEP_POINTS = 64, 200
GRADIENT: tuple[int, ...] = (64, 256, 1024, 4096)
# From the number of ν to the rows that each keeps: the same for each, or in all.
STEPS_OF = {
    "64 rows for each ν": dict.fromkeys((8, 16, 32, 64), 64),
    "2048 rows in all": {n: 2048 // n for n in (32, 64, 128)},
}
DEPTH, ROUNDS, STEPS = 6, 20, 4
if QUICK:
    DEPTH, ROUNDS, STEPS, STEP_POINTS = 2, 3, 3, 20
    GRADIENT, STEPS_OF = (4,), {"8 rows for each ν": {4: 8}}

problem = hpx.Burgers()
loss = hpx.PINNLoss(problem, n_conditions=50)
MESHES = {
    n: jax.sharding.Mesh(jax.devices()[:n], ("lam",))
    for n in (1, 2)
    if n <= len(jax.devices())
}


def untrained() -> hpx.HyperPINN:
    """The paper's HyperPINN."""
    main = hpx.MainNetSpec((2, *DEPTH * (8,), 1), problem.domain)
    return hpx.HyperPINN(main, problem.parameters, (32, 32, 32, 16), key=jr.key(0))


@jax.jit
def gradient(model: hpx.HyperPINN, batch: hpx.Batch) -> hpx.HyperPINN:
    """What one step of Adam asks for."""
    return jax.grad(lambda model: loss(model, batch).total)(model)


def one_gradient(n_nu: int, mesh: jax.sharding.Mesh) -> Callable:
    """One gradient on a mesh, ready to be timed."""
    lams = hpx.log_uniform(problem.parameters, n_nu, key=jr.key(1))
    points = hpx.uniform(problem.domain, (n_nu, POINTS), key=jr.key(2))
    batch = loss.sample(untrained(), key=jr.key(3), lam=lams, points=points)
    # As in a training: weights are everywhere, and each device has its own batch.
    model = devices.everywhere(mesh, untrained())
    split = jax.jit(lambda batch: hpx.shard(batch, "lam"))
    batch = devices.on(mesh, split)(batch)
    return lambda: devices.on(mesh, gradient)(model, batch)


def step_loss(n_nu: int) -> hpx.PINNLoss:
    """The loss of a Gauss-Newton step."""
    return hpx.PINNLoss(
        problem,
        n_lam=n_nu,
        n_points=STEP_POINTS,
        n_conditions=50,
        factor=hpx.slope_weight("x"),
    )


def one_step(n_nu: int, rank: int, mesh: jax.sharding.Mesh) -> float:
    """Median seconds of a Gauss-Newton step, all on one batch, the first left out."""
    result = hpx.gauss_newton(
        untrained(),
        step_loss(n_nu),
        steps=STEPS,
        redraw=STEPS,
        # So large that the first trial of a step lowers the loss.
        damping=1.0,
        rank=rank,
        key=jr.key(4),
        progress=False,
        mesh=mesh,
    )
    return float(np.median(np.diff(result.history["seconds"])))


def solution(n_nu: int, rank: int) -> float:
    """Median seconds of the solution of the dense system, on one device."""
    model, loss = untrained(), step_loss(n_nu)
    batch = loss.sample(model, key=jr.key(4))
    trained = jax.tree.map(lambda _: True, model)
    system = linear_system.linearise(loss, rank, trained, model, batch, jr.key(5))

    solve = jax.jit(functools.partial(linear_system.solve, loss, trained))

    def once() -> tuple:
        return solve(model, batch, system, jnp.asarray(1.0))

    jax.block_until_ready(once())
    return statistics.median(timed(once)[0] for _ in range(3))


def show(title: str, found: dict[str, dict[str, float]]) -> None:
    """Prints one table: seconds, and seconds for each ν."""
    print(f"\n{title}\n")
    names = list(next(iter(found.values())))
    rows = []
    for n, seconds in found.items():
        cells = [f"{text(s)}, {text(s / int(n))} for each" for s in seconds.values()]
        rows.append([n, *cells])
    print(markdown(["ν", *names], rows))


def main() -> None:
    """Times everything, prints the tables and writes the record."""
    print(told())
    names = {n: f"{n} device{'s' * (n > 1)}" for n in MESHES}
    found: dict = {"gradient": {}, "step": {}}
    for n_nu in GRADIENT:
        work = {names[n]: one_gradient(n_nu, mesh) for n, mesh in MESHES.items()}
        found["gradient"][str(n_nu)] = medians(work, ROUNDS)
    show(f"One gradient, float32, {POINTS} points for each ν", found["gradient"])
    for kept, sizes in STEPS_OF.items():
        with jax.enable_x64(True):
            found["step"][kept] = {
                str(n_nu): {
                    **{names[n]: one_step(n_nu, rank, m) for n, m in MESHES.items()},
                    "of it, the solution": solution(n_nu, rank),
                }
                for n_nu, rank in sizes.items()
            }
        show(f"One Gauss-Newton step, float64, {kept}", found["step"][kept])
    write("devices", {"points": POINTS, "step_points": STEP_POINTS, **found})


if __name__ == "__main__":
    main()
