"""How fast is one training gradient beside jinns, on the same networks and points?

    python benchmarks/jinns_gradient.py [--quick]

Burgers' equation for 64 viscosities x (64 collocation, 64 initial and 128 boundary
points) and the paper's networks, float32. Both libraries get the same weights, must
return the same loss and gradient (checked), and take turns in one process. jinns' loss
is its own, and differentiated in two ways: as `jinns.solve` does it, and by one
`jax.value_and_grad`. The ratio that counts is to the faster of them. The first run
installs jinns from PyPI into `.venv-jinns`. Record: `book/data/jinns-gradient.json`.
"""

import jinns_setup  # isort: skip

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jinns
from common import QUICK, medians, told, write
from jax.flatten_util import ravel_pytree

import hyperpinn_eqx as hpx
from hyperpinn_eqx.paper.tables import markdown
from hyperpinn_eqx.physics.sampling import Places

M = N = 4 if QUICK else 64
DEPTH, ROUNDS = (2, 2) if QUICK else (6, 30)
OURS, SOLVE, GRAD = "hyperpinn_eqx", "jinns, as in `solve`", "jinns, `value_and_grad`"
Way = Callable[[], tuple[jax.Array, Any]]

problem = hpx.Burgers()
shape = hpx.MainNetSpec((2, *DEPTH * (8,), 1), problem.domain)
model = hpx.HyperPINN(shape, problem.parameters, (32, 32, 32, 16), key=jr.key(0))
x = hpx.uniform(hpx.Box(x=(-1, 1)), (N,), key=jr.key(3))
t = hpx.uniform(hpx.Box(t=(0, 1)), (N,), key=jr.key(4))
left, right = (jnp.concatenate([t, jnp.full_like(t, end)], axis=1) for end in (-1, 1))
lams = hpx.log_uniform(problem.parameters, M, key=jr.key(1))
inside = hpx.uniform(problem.domain, (M, N), key=jr.key(2))
initial = jnp.concatenate([jnp.zeros_like(x), x], axis=1)
# The data term of jinns is one mean over three sets of points of one size.
full = hpx.PINNLoss(problem, weights={"start": 1 / 3, "walls": 2 / 3})


def at(points: jax.Array) -> Places:
    """The same points of a condition for every ν."""
    each = jnp.broadcast_to(points, (M, *points.shape))
    return Places(each, jnp.zeros_like(each))


walls = at(jnp.concatenate([left, right]))
batch = hpx.Batch(lams, {"physics": inside, "start": at(initial), "walls": walls})


def whole(model: hpx.HyperPINN) -> jax.Array:
    """Our loss."""
    return full(model, batch).total


def physics(model: hpx.HyperPINN) -> jax.Array:
    """Our loss without its data."""
    return full(model, batch).terms["physics"]


def ours(loss: Callable[[hpx.HyperPINN], jax.Array]) -> Way:
    """Value and gradient of one of our losses."""
    gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss))

    def way() -> tuple[jax.Array, Any]:
        value, slope = gradient(model)
        return value, jinns_setup.leaves(slope)

    return way


def theirs(data: bool) -> tuple[Way, Way]:
    """Value and gradient of jinns' loss, with its data or without."""
    # jinns pairs every point, those of the conditions too, with a ν of its own.
    nu = {"nu": jnp.repeat(lams, N, axis=0)}
    walls = jnp.stack([left, right], axis=-1)
    u, weights = jinns_setup.network(model)
    params = jinns.parameters.Params(nn_params=weights, eq_params=nu)
    points = jinns.data.PDENonStatioBatch(
        domain_batch=inside.reshape(-1, 2),
        initial_batch=jnp.tile(x, (M, 1)) if data else None,
        border_batch=jnp.tile(walls, (M, 1, 1)) if data else None,
    )
    points = jinns.data.append_param_batch(points, params.eq_params)
    loss = jinns_setup.loss(u, params, data=1 / 3 if data else None)

    @jax.jit
    def solve(params: Any, loss: Any, points: Any) -> tuple[jax.Array, Any]:
        terms, slopes = loss.values_and_grads(params, points)
        slope = loss.ponderate_and_sum_gradient(slopes)
        return loss.ponderate_and_sum_loss(terms), slope.nn_params

    @jax.jit
    def grad(weights: Any, points: Any) -> tuple[jax.Array, Any]:
        def value(weights: Any) -> jax.Array:
            full = jinns.parameters.Params(weights, params.eq_params)
            return loss.evaluate(full, points)[0]

        return jax.value_and_grad(value)(weights)

    return lambda: solve(params, loss, points), lambda: grad(weights, points)


def difference(first: tuple, other: tuple) -> float:
    """How much two ways differ in value or gradient, whichever is more, relative."""
    gaps = []
    for a, b in zip(first, other, strict=True):
        a, b = ravel_pytree(a)[0], ravel_pytree(b)[0]
        gaps.append(float(jnp.linalg.norm(b - a) / jnp.linalg.norm(a)))
    return max(gaps)


def main() -> None:
    """Checks, takes turns, prints medians and ratios, and writes the record."""
    rows: list[dict[str, Any]] = []
    for terms, loss in (("physics and data", whole), ("physics", physics)):
        names = (OURS, SOLVE, GRAD)
        ways = dict(zip(names, (ours(loss), *theirs(loss is whole)), strict=True))
        gaps = {name: difference(ways[OURS](), way()) for name, way in ways.items()}
        assert max(gaps.values()) < 1e-3, gaps
        seconds = medians(ways, ROUNDS)
        rows += [
            {
                "terms": terms,
                "way": name,
                "milliseconds": 1e3 * seconds[name],
                "ratio": seconds[name] / seconds[OURS],
                "difference": gaps[name],
            }
            for name in names
        ]
    print(f"{told()}, jinns {jinns_setup.JINNS}\n")
    cells = [
        [r["terms"], r["way"], f"{r['milliseconds']:.1f}", f"{r['ratio']:.1f}"]
        for r in rows
    ]
    print(markdown(["loss", "way", "median, ms", "ratio"], cells))
    write("jinns-gradient", {"versions": jinns_setup.versions(), "rows": rows})


if __name__ == "__main__":
    main()
