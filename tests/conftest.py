"""Strict modes for the whole suite, and what many tests share.

Tests run in float32, JAX's default; a test that needs float64 asks for `x64` before
any other fixture.
"""

import functools
import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import lorenz_tables
from hyperpinn_eqx.journal import Journal

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tests compile much and compute little. For the same reason they jit what they test:
# eager mode would compile every single operation.
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
    """A tiny HyperPINN for the heat equation: 25 weights in the main network."""
    main = hpx.MainNetSpec((2, 4, 2, 1), heat.domain)
    return eqx.filter_jit(hpx.HyperPINN)(main, heat.parameters, (4, 3), key=getkey())


@pytest.fixture
def concat(heat, getkey):
    """A tiny baseline for the heat equation."""
    main = hpx.MainNetSpec((2, 4, 2, 1), heat.domain)
    return eqx.filter_jit(hpx.ConcatPINN)(main, heat.parameters, key=getkey())


@pytest.fixture(params=["hyper", "concat"])
def model(request):
    """Either tiny model, in a test that holds for both."""
    return request.getfixturevalue(request.param)


class Counting(hpx.AbstractModel):
    """A model that counts how often its hypernetwork really runs."""

    inner: hpx.AbstractModel
    parameters: hpx.Box = eqx.field(static=True)
    record: Callable = eqx.field(static=True)

    def generate(self, scaled):
        jax.debug.callback(lambda lam: self.record(float(lam[0])), scaled)
        return self.inner.generate(scaled)

    def config(self):
        return {}


@pytest.fixture
def counting():
    """Wraps a model so that it fills a list with the scaled λ at which it ran."""

    def count(model):
        calls = []
        return Counting(model, model.parameters, calls.append), calls

    return count


class StopAt(Journal):
    """A journal that is asked to stop after one step of a stage."""

    at: tuple[str, int]

    def keep(self, stage, step, state, rows):
        if (stage, step) == self.at:
            self._signal = "SIGINT"
        super().keep(stage, step, state, rows)


@pytest.fixture
def stop_at():
    """A class of journals that stop after the given step of the given stage."""
    return lambda stage, step: type("StopAt", (StopAt,), {"at": (stage, step)})


@pytest.fixture
def few_lorenz_cases(monkeypatch):
    """A Lorenz test set of four cases, and short long runs."""
    lam = jnp.array([[10, 1, 0.5], [10, 2, 10.0], [10, 8 / 3, 28], [10, 2, 26.0]])
    start = jnp.array([[1.0, 2, 3], [4, 5, 6], [1, -2, 20], [-3, 2, 15]])[:, None]
    true = functools.cache(lambda: hpx.simulate(hpx.Lorenz(), lam, start, duration=2.0))
    monkeypatch.setattr(lorenz_tables, "test_set", true)
    short = functools.partial(hpx.long_run, duration=40.0)
    monkeypatch.setattr(lorenz_tables, "long_run", short)
    lorenz_tables.true_run.cache_clear()
    yield true
    lorenz_tables.true_run.cache_clear()
