"""λ from 20 noisy observations, through a HyperPINN and through a Diffrax solver.

    python benchmarks/inverse.py [--quick]

Both are given to `hpx.infer` as its `predict`, for the same 100 cases with λ from the
prior, and the same noise. Data are made of exact solutions. For Burgers' equation the
noise is 0.05, at random points; the solver is the fastest of `solver.py` at small ν, on
a grid that errs by less than a fifth of the noise. For the Lorenz system it is 0.5 on
each component of the state, at 20 times up to 2; the learned field is integrated by the
same solver as the exact one, as trained and without the trapezoid rule's bias.

With 16 samples there is little more than the search.

Expected, before the first run: equal accuracy and equal coverage everywhere. In time,
the HyperPINN wins by a factor of a hundred or more for Burgers' equation, since it
predicts 20 values without solving for all others. For the Lorenz system it loses, since
its field has to be integrated too, and costs more than the exact one with its few
products. Record: `book/data/inverse.json` (not with --quick). Five minutes.
"""

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from common import QUICK, text, timed, told, write
from spaces import chebyshev

import hyperpinn_eqx as hpx
from hyperpinn_eqx.paper import WithoutBias
from hyperpinn_eqx.paper.tables import markdown

CASES, OBSERVATIONS = 3 if QUICK else 100, 20
GRID, TOLERANCE, DURATION = 16 if QUICK else 64, 1e-2, 2.0
SAMPLES = ((16,), 16) if QUICK else ((200, 16), 500)
# From λ and what belongs to a case to its observations without noise.
Predict = Callable[[jax.Array, Any], jax.Array]


class Problem(NamedTuple):
    """Cases of one family, and the ways to predict their observations."""

    box: hpx.Box
    noise: float
    true: np.ndarray
    clean: np.ndarray
    cases: list[Any]
    ways: Sequence[tuple[str, Predict, int]]


def burgers() -> Problem:
    """Random points, the HyperPINN, and the method of lines."""
    problem, rng = hpx.Burgers(), np.random.default_rng(0)
    nu = np.exp(rng.uniform(np.log(0.001), np.log(0.1), (CASES, 1)))
    t = np.sort(rng.uniform(0, 1, (CASES, OBSERVATIONS)), axis=1)
    x = rng.uniform(-1, 1, t.shape)
    model, space = hpx.load_pretrained("burgers-hyperpinn"), chebyshev(GRID, x.ravel())
    start = jnp.asarray(-np.sin(np.pi * space.x), jnp.float32)
    term = dfx.ODETerm(lambda t, u, nu: space.advection(u) + nu * space.diffusion(u))

    def network(lam: jax.Array, case: tuple) -> jax.Array:
        return jax.vmap(model(lam))(case[0])

    def solver(lam: jax.Array, case: tuple) -> jax.Array:
        points, onto = case
        solution = dfx.diffeqsolve(
            term,
            dfx.Kvaerno3(),
            t0=0.0,
            t1=1.0,
            dt0=None,
            y0=start,
            args=lam[0],
            saveat=dfx.SaveAt(ts=points[:, 0]),
            stepsize_controller=dfx.PIDController(TOLERANCE, TOLERANCE),
            adjoint=dfx.ForwardMode(),
            max_steps=400,
            throw=False,
        )
        return jnp.sum(solution.ys * onto, axis=1)

    points = jnp.asarray(np.stack([t, x], axis=-1), jnp.float32)
    onto = jnp.asarray(space.onto.reshape(*t.shape, -1), jnp.float32)
    cases = list(zip(points, onto, strict=True))
    ways = {"HyperPINN": network, "solver": solver}
    each = [(name, way, n) for n in SAMPLES[0] for name, way in ways.items()]
    return Problem(problem.parameters, 0.05, nu, problem.exact(t, x, nu), cases, each)


def lorenz() -> Problem:
    """Known initial states, the learned field and the exact one."""
    problem, rng = hpx.Lorenz(), np.random.default_rng(1)
    box = problem.parameters
    lam = rng.uniform(box.low, box.high, (CASES, 3))
    start = rng.uniform(-10, 10, (CASES, 3))
    dt = DURATION / OBSERVATIONS
    run = hpx.simulate(problem, lam, start[:, None], duration=DURATION, dt=dt)
    times = jnp.asarray(run.t[1:], jnp.float32)

    def through(family: Callable) -> Predict:
        def predict(lam: jax.Array, start: jax.Array) -> jax.Array:
            field = family(lam)
            solution = dfx.diffeqsolve(
                dfx.ODETerm(lambda t, x, args: field(x)),
                dfx.Tsit5(),
                t0=0.0,
                t1=DURATION,
                dt0=None,
                y0=start,
                saveat=dfx.SaveAt(ts=times),
                stepsize_controller=dfx.PIDController(1e-4, 1e-4),
                adjoint=dfx.ForwardMode(),
                throw=False,
            )
            return solution.ys

        return predict

    model = hpx.load_pretrained("lorenz-hyperpinn")
    families: dict[str, Callable] = {
        "HyperPINN": model,
        "HyperPINN, unbiased": WithoutBias(model),
        "exact field": problem,
    }
    if QUICK:
        families.pop("HyperPINN")
    each = [(name, through(family), SAMPLES[1]) for name, family in families.items()]
    clean = np.asarray(run.states[:, 0, 1:])
    return Problem(box, 0.5, lam, clean, list(jnp.asarray(start, jnp.float32)), each)


def measure(problem: Problem, predict: Predict, samples: int) -> dict[str, Any]:
    """Time, accuracy and coverage of one way to predict, over all cases."""
    box, true, noise = problem.box, problem.true, problem.noise
    rng = np.random.default_rng(2)
    noisy = problem.clean + noise * rng.normal(size=problem.clean.shape)
    seen = list(jnp.asarray(noisy, jnp.float32))

    @jax.jit
    def run(case: Any, seen: jax.Array) -> hpx.Posterior:
        def at(lam: jax.Array) -> jax.Array:
            return predict(lam, case)

        return hpx.infer(at, seen, box, noise=noise, samples=samples)

    jax.block_until_ready(run(problem.cases[0], seen[0]))
    seconds, found = [], []
    for case, y in zip(problem.cases, seen, strict=True):
        taken, one = timed(functools.partial(run, case, y))
        seconds.append(taken)
        found.append(one)
    whole = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    at_truth, lams = jax.jit(predict), list(jnp.asarray(true, jnp.float32))
    told = [at_truth(*pair) for pair in zip(lams, problem.cases, strict=True)]
    off = np.asarray(jnp.stack(told), float) - problem.clean
    per_case = np.sqrt(np.mean(off.reshape(CASES, -1) ** 2, axis=1))

    free = np.array(box.low) < np.array(box.high)
    error = np.asarray(box.scale(whole.lam) - box.scale(true))[:, free]
    low, high = whole.interval(0.9)
    width = np.asarray(box.scale(high) - box.scale(low))[:, free]
    inside = np.asarray((low <= true) & (true <= high))[:, free]
    deviation = np.sqrt(np.diagonal(whole.covariance, axis1=1, axis2=2))[:, free]
    return {
        "samples": samples,
        "seconds": statistics.median(seconds),
        "model_error": [float(np.median(per_case)), float(per_case.max())],
        "error": np.median(np.abs(error), axis=0).tolist(),
        "width": np.median(width, axis=0).tolist(),
        "covered": inside.sum(axis=0).tolist(),
        "laplace": np.sum(np.abs(error) < 1.645 * deviation, axis=0).tolist(),
    }


def main() -> None:
    """Measures every way, prints the tables and writes the record."""
    print(told(), f"\n\n{CASES} cases, {OBSERVATIONS} observations each\n")
    head = ["", "samples", "a case", "model error", "worst", "error", "90 % width"]
    head += ["covered", "Laplace"]
    record: dict[str, Any] = {"cases": CASES, "observations": OBSERVATIONS}
    for name, problem in (("burgers", burgers()), ("lorenz", lorenz())):
        rows = [(way, measure(problem, f, n)) for way, f, n in problem.ways]
        record[name] = {"noise": problem.noise, "rows": rows}
        lines = [
            [way, f"{r['samples']}", text(r["seconds"])]
            + [f"{e:.1g}" for e in r["model_error"]]
            + [", ".join(f"{e:.2g}" for e in r[key]) for key in ("error", "width")]
            + [", ".join(map(str, r[key])) for key in ("covered", "laplace")]
            for way, r in rows
        ]
        print(f"{name}, noise {problem.noise}\n\n{markdown(head, lines)}\n")
    write("inverse", record)


if __name__ == "__main__":
    main()
