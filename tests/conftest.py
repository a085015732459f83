"""Strict modes for the whole suite, and what many tests share.

Tests run in float32, JAX's default; a test that needs float64 asks for `x64` before
any other fixture.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import pytest

import hyperpinn_eqx as hpx

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tests compile much and compute little.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def getkey():
    """Makes a new random key at each call, the same ones in every run."""
    seeds = itertools.count()
    return lambda: jr.key(next(seeds))


@pytest.fixture
def x64():
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked():
    """Runs without jaxtyping, so that the package's own errors come to light."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Heat(hpx.AbstractPDE):
    """A user's own equation, with the exact solution -exp(-κπ²t) sin(πx)."""

    domain = hpx.Box(t=(0, 1), x=(-1, 1))
    parameters = hpx.Box(kappa=(0.01, 1.0, "log"))
    derivatives = ("t", "xx")

    def residual(self, u, tx, lam):
        return u.t - lam * u.xx

    def initial(self, tx, lam):
        return -jnp.sin(jnp.pi * tx[1])

    def boundary(self, tx, lam):
        return jnp.zeros(())


@pytest.fixture
def heat():
    return Heat()


@pytest.fixture
def hyper(heat, getkey):
    """A tiny HyperPINN for the heat equation: 26 weights in the main network."""
    main = hpx.MainNetSpec((2, 4, 2, 1), heat.domain)
    return hpx.HyperPINN(main, heat.parameters, (4, 3), key=getkey())


@pytest.fixture
def concat(heat, getkey):
    """A tiny baseline for the heat equation."""
    main = hpx.MainNetSpec((2, 4, 2, 1), heat.domain)
    return hpx.ConcatPINN(main, heat.parameters, key=getkey())


@pytest.fixture(params=["hyper", "concat"])
def model(request):
    """Either tiny model, in a test that holds for both."""
    return request.getfixturevalue(request.param)


class Counting(hpx.AbstractModel):
    """A model that counts how often its hypernetwork really runs."""

    inner: hpx.AbstractModel
    parameters: hpx.Box = eqx.field(static=True)
    calls: list = eqx.field(static=True)

    def __init__(self, inner):
        self.inner, self.parameters, self.calls = inner, inner.parameters, []

    def generate(self, scaled):
        jax.debug.callback(lambda lam: self.calls.append(float(lam[0])), scaled)
        return self.inner.generate(scaled)

    def config(self):
        return {}


@pytest.fixture
def counting():
    return Counting
