"""How fast is prediction at one ν, and when is the hypernetwork's own cost paid back?

    python benchmarks/prediction.py [--quick]

The networks of the three shipped Burgers models for one ν, in float32, compiled, in
three ways: point by point under `vmap`; feature-first, where each layer is one product
with features x points; and that in blocks of points, whose features stay in a core's
cache. Every network is offered every way; the ratio of each one's fastest counts.

Then the cost of a new ν (running the hypernetwork, or folding ν into a baseline's
first bias), and where the time of a prediction goes. About a minute on two cores.
Record: `book/data/prediction.json` (not with --quick).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from common import QUICK, medians, text, told, write

import hyperpinn_eqx as hpx
from hyperpinn_eqx.paper.tables import markdown

NU = 0.01
BLOCK = 2000
# Points, and rounds of turns.
ROUNDS = {1: 500, 100: 500, 10_000: 200, 100_000: 30, 1_000_000: 9}
if QUICK:
    ROUNDS = {1: 9, 100: 9, 10_000: 3}
MAIN, LARGE, SMALL = "burgers-hyperpinn", "burgers-large-pinn", "burgers-small-pinn"
Way = Callable[[hpx.MainNet, jax.Array], jax.Array]


def point_by_point(u: hpx.MainNet, points: jax.Array) -> jax.Array:
    """One call of the network a point, under `vmap`."""
    return jax.vmap(u)(points)


def feature_first(u: hpx.MainNet, points: jax.Array) -> jax.Array:
    """The package's pass over many points, without derivatives."""
    return hpx.jets(u, points, ()).value


def in_blocks(way: Way) -> Way:
    """One block of points after the other."""

    def blocked(u: hpx.MainNet, points: jax.Array) -> jax.Array:
        whole = len(points) // BLOCK * BLOCK
        if whole == 0:
            return way(u, points)
        blocks = points[:whole].reshape(-1, BLOCK, points.shape[1])
        values = jax.lax.map(lambda block: way(u, block), blocks).ravel()
        rest = way(u, points[whole:]) if whole < len(points) else values[:0]
        return jnp.concatenate([values, rest])

    return blocked


def probe(activation: Callable[[jax.Array], jax.Array]) -> Way:
    """The bare layers with any activation: to be timed, not to predict."""

    def forward(u: hpx.MainNet, points: jax.Array) -> jax.Array:
        h = u.spec.inputs.scale(points).T
        for w, b in zip(u.weights[:-1], u.biases[:-1], strict=True):
            h = activation(w @ h + b[:, None])
        return (u.weights[-1] @ h)[0] + u.biases[-1]

    return in_blocks(forward)


WAYS: dict[str, Way] = {
    "point by point": point_by_point,
    "feature-first": feature_first,
    f"in blocks of {BLOCK}": in_blocks(feature_first),
}
# ReLU costs next to nothing: what remains are the products.
PROBES = {"tanh": probe(jnp.tanh), "ReLU": probe(jax.nn.relu)}


def time_ways(
    ways: dict[str, Way], nets: dict[str, hpx.MainNet], n: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Median seconds of each way and network at n points."""
    points = hpx.uniform(hpx.Burgers().domain, (n,), key=jr.key(0))
    turns: dict[tuple[str, str], Callable] = {}
    for way, function in ways.items():
        compiled = jax.jit(function)
        turns |= {(way, m): partial(compiled, u, points) for m, u in nets.items()}
    found = medians(turns, rounds)
    return {way: {m: found[way, m] for m in nets} for way in ways}


def payback(extra: float, saved: dict[int, float]) -> str:
    """After how many points `extra` seconds are saved, linear between known numbers."""
    most = np.maximum.accumulate(list(saved.values()))
    n = np.interp(extra, most, list(saved), right=np.inf)
    return "from the first point" if n == 1 else f"after {n:.0f} points"


def main() -> None:
    """Times everything, prints the tables and writes the record."""
    models = {name: hpx.load_pretrained(name) for name in (MAIN, LARGE, SMALL)}
    nets = {name: model(NU) for name, model in models.items()}

    found = {n: time_ways(WAYS, nets, n, r) for n, r in ROUNDS.items()}
    for ways in found.values():
        ways["fastest"] = {m: min(ts[m] for ts in ways.values()) for m in nets}
    rows = [
        [f"{n}", way, *map(text, ts.values()), f"{ts[LARGE] / ts[MAIN]:.1f}"]
        for n, ways in found.items()
        for way, ts in ways.items()
    ]
    print(told(), f"\n\nPrediction at ν = {NU}, median time\n")
    print(markdown(["points", "way", *nets, "large / hyperpinn"], rows))

    turn, nu = jax.jit(lambda model, nu: model(nu)), jnp.asarray(NU)
    calls = {"compiled": lambda f: turn(f, nu), "as called": lambda f: f(NU)}
    new = {
        way: medians({m: partial(call, f) for m, f in models.items()}, 100)
        for way, call in calls.items()
    }
    print("\nNetwork for a new ν, median time\n")
    rows = [[way, *map(text, ts.values())] for way, ts in new.items()]
    print(markdown(["model(ν)", *models], rows))
    saved = {n: w["fastest"][LARGE] - w["fastest"][MAIN] for n, w in found.items()}
    paid = payback(new["compiled"][MAIN] - new["compiled"][LARGE], saved)
    print(f"\nThe hypernetwork, compiled, is paid back {paid}.")

    n = max(ROUNDS)
    parts = time_ways(PROBES, nets, n, ROUNDS[n])
    rows = []
    for m, u in nets.items():
        whole, products = (1e9 * times[m] / n for times in parts.values())
        tanhs = sum(u.spec.sizes[1:-1])
        cells = [f"{v:.3g}" for v in (whole, products, (whole - products) / tanhs)]
        rows.append([m, str(u.spec.size), str(tanhs), *cells])
    print(f"\nWhere the time goes: {n} points in blocks of {BLOCK}, ns a point\n")
    head = ["network", "weights", "tanh", "all", "ReLU for tanh", "one tanh"]
    print(markdown(head, rows))

    record = {"nu": NU, "block": BLOCK, "prediction": found, "new_nu": new}
    write("prediction", {**record, "paid_back": paid, "points": n, "probes": parts})


if __name__ == "__main__":
    main()
