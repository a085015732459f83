"""How fast is one training gradient of a HyperPINN? Three ways to write one loss.

    python benchmarks/gradient.py [--quick]

64 viscosities x 64 collocation points and the paper's networks, float32. All ways give
the same gradient (checked), and take turns in one run, so that their ratio holds even
if the machine's speed drifts.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from common import QUICK, medians
from jax.flatten_util import ravel_pytree

import hyperpinn_eqx as hpx

M, N, DEPTH, ROUNDS = (4, 8, 2, 2) if QUICK else (64, 64, 6, 30)
problem = hpx.Burgers()
shape = hpx.MainNetSpec((2, *DEPTH * (8,), 1), problem.domain)
model = hpx.HyperPINN(shape, problem.parameters, (32, 32, 32, 16), key=jr.key(0))
lams = hpx.log_uniform(problem.parameters, M, key=jr.key(1))
points = hpx.uniform(problem.domain, (M, N), key=jr.key(2))
# One mean over all points of the data, half of them at the start.
shares = {"start": 0.5, "walls": 0.5}
loss = hpx.PINNLoss(problem, n_conditions=50, weights=shares)
batch = loss.sample(model, key=jr.key(3), lam=lams, points=points)


def nested_residual(u: Callable, tx: jax.Array, nu: jax.Array) -> jax.Array:
    """The residual as most PINN code has it: derivatives by nested `jax.grad`."""
    u_t, u_x = jax.grad(u)(tx)
    u_xx = jax.grad(lambda tx: jax.grad(u)(tx)[1])(tx)[1]
    return u_t + u(tx) * u_x - nu * u_xx


def misfit(u: Callable, tx: jax.Array) -> jax.Array:
    """The data term: the sine vanishes at the walls, so it serves for both."""
    return u(tx) + jnp.where(tx[0] == 0, jnp.sin(jnp.pi * tx[1]), 0.0)


data = jnp.concatenate([batch.items[name].point for name in shares], axis=1)


def package(model: hpx.HyperPINN) -> jax.Array:
    """Hypernetwork once for each ν, all derivatives in one pass."""
    return loss(model, batch).total


def nested(model: hpx.HyperPINN) -> jax.Array:
    """Hypernetwork once for each ν, nested derivatives."""

    def one(nu: jax.Array, points: jax.Array, data: jax.Array) -> jax.Array:
        u = model(nu)
        r = jax.vmap(lambda tx: nested_residual(u, tx, nu[0]))(points)
        d = jax.vmap(lambda tx: misfit(u, tx))(data)
        return jnp.mean(r**2) + jnp.mean(d**2)

    return jnp.mean(jax.vmap(one)(lams, points, data))


def per_point(model: hpx.HyperPINN) -> jax.Array:
    """Hypernetwork inside the function of one point, nested derivatives."""

    # As in code that pairs λ with points: each pair runs the hypernetwork by itself.
    def residual(nu: jax.Array, tx: jax.Array) -> jax.Array:
        return nested_residual(lambda p: model(nu)(p), tx, nu[0])

    def miss(nu: jax.Array, tx: jax.Array) -> jax.Array:
        return misfit(lambda p: model(nu)(p), tx)

    nus = jnp.repeat(lams, N, axis=0)
    r = jax.vmap(residual)(nus, points.reshape(-1, 2))
    nus = jnp.repeat(lams, data.shape[1], axis=0)
    d = jax.vmap(miss)(nus, data.reshape(-1, 2))
    return jnp.mean(r**2) + jnp.mean(d**2)


def main() -> None:
    """Times every way in turn and prints medians and ratios."""
    ways = {str(f.__doc__).rstrip("."): f for f in (package, nested, per_point)}
    gradients = {name: eqx.filter_jit(jax.grad(f)) for name, f in ways.items()}
    first, *others = (ravel_pytree(g(model))[0] for g in gradients.values())
    for other in others:
        assert jnp.linalg.norm(other - first) < 1e-3 * jnp.linalg.norm(first)

    times = medians({n: partial(g, model) for n, g in gradients.items()}, ROUNDS)
    fastest = next(iter(times.values()))
    print(f"device: {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print("| way | median, ms | ratio |\n| --- | ---: | ---: |")
    for name, median in times.items():
        print(f"| {name} | {1e3 * median:.1f} | {median / fastest:.1f} |")


if __name__ == "__main__":
    main()
