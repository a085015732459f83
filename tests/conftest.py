"""Strict modes for the whole suite, and what many tests share.

Tests run in float32, JAX's default; a test that needs float64 asks for `x64` before
any other fixture.
"""

import importlib.metadata
import itertools
import os
import pathlib
import types
from collections.abc import Callable

# Before JAX is imported. Tests compile much and compute little, and without these
# emitters the compiler takes two thirds of the time. jaxlib 0.12 has the flag no more,
# and a flag that it does not know ends the process. A choice of your own wins.
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 12):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import _programs as programs
from hyperpinn_eqx.training.journal import Journal

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tests compile much and compute little. For the same reason they jit what they test:
# eager mode would compile every single operation.
jax.config.update("jax_disable_most_optimizations", True)
# So that a test can split work between devices; all else runs on the first.
jax.config.update("jax_num_cpu_devices", 4)
# Two draws from one key are not independent.
jax.config.update("jax_debug_key_reuse", True)
# A test looks where an error was raised.
jax.config.update("jax_traceback_filtering", "off")

_PACKAGE = pathlib.Path(hpx.__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Files with slow tests come first: begun last, they would be waited for.

    What opens the book is slow as well, since `-m "not slow"` takes the place of the
    `-m "not pages"` of pyproject.toml.
    """
    for item in items:
        if item.get_closest_marker("pages"):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_code():
    """Every compiled function holds maps of memory, of which Linux allows 65530.

    The whole suite would need more, and the compiler then dies. To forget costs time,
    since the next file compiles again what all files share.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()
        programs._executables.clear()


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


@pytest.fixture
def order_of():
    """The power of the step with which errors fall, by regression."""
    return lambda steps, errors: np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.fixture(params=["float32", "float64"])
def computes_in_its_own_precision(request, x64):
    """Checks what is made of a network of one precision and given x of the other."""
    weights = request.param
    (given,) = {"float32", "float64"} - {weights}

    def check(make, net, x):
        f, x = make(hpx.cast(net, weights)), jnp.asarray(x, given)

        def total(x):
            return jnp.sum(f(x) ** 2)

        pairs = [
            (jax.jit(g)(x), jax.jit(g)(x.astype(weights))) for g in (f, jax.grad(total))
        ]
        assert [found.dtype for found, _ in pairs] == [weights, given]
        for found, expected in pairs:
            np.testing.assert_allclose(
                found.astype(float), expected.astype(float), rtol=1e-4, atol=1e-5
            )

    return check


class Heat(hpx.AbstractPDE):
    """A user's own equation, with the exact solution -exp(-κπ²t) sin(πx)."""

    domain = hpx.Box(t=(0, 1), x=(-1, 1))
    parameters = hpx.Box(kappa=(0.01, 1.0, "log"))

    def residual(self, u, tx, lam):
        return u.t - lam * u.xx

    @hpx.condition(t=0)
    def start(self, u, tx, lam):
        return u.value + jnp.sin(jnp.pi * tx[1])

    @hpx.condition(x=(-1, 1))
    def walls(self, u, tx, lam):
        return u.value


@pytest.fixture
def heat():
    return Heat()


@pytest.fixture
def steady():
    """Makes a family for q, on [0, 1] or on another domain, of what it says."""

    def make(residual, known=None, **domain):
        domain = domain or {"x": (0, 1)}
        body = {
            "domain": hpx.Box(**domain),
            "parameters": hpx.Box(q=(0.5, 2.0)),
            "residual": lambda self, u, x, lam: residual(u, x, lam),
        }
        if known is not None:
            faces = {n: r[:2] for n, r in domain.items() if r[2:] != ("periodic",)}
            faces = {"t": faces["t"][0]} if "t" in faces else faces
            body["known"] = hpx.condition(**faces)(
                lambda self, u, x, lam: u.value - known(x, lam)
            )
        return type("Some", (hpx.AbstractPDE,), body)()

    return make


@pytest.fixture
def rod():
    """A cooling rod of conductivity k and source q, in units of its author's choice."""

    def make(time=1.0, length=1.0, heat=1.0, offset=0.0, equation=1.0):
        class Rod(hpx.AbstractPDE):
            domain = hpx.Box(t=(0.0, time), x=(0.0, length))
            parameters = hpx.Box(
                k=(0.01 * length**2 / time, length**2 / time, "log"),
                q=(0.0, heat / time),
            )

            def residual(self, u, tx, lam):
                k, q = lam
                return equation * (u.t - k * u.xx - q * jnp.sin(tx[1] / length))

            @hpx.condition(t=0)
            def start(self, u, tx, lam):
                return u.value - offset - heat * jnp.sin(jnp.pi * tx[1] / length)

            @hpx.condition(x=(0, length))
            def walls(self, u, tx, lam):
                return u.value - offset

        return Rod()

    return make


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


@pytest.fixture
def heat_loss(heat):
    """Its loss on small batches, of three λ."""
    sizes = {"n_lam": 3, "n_points": 8, "n_conditions": 3}
    return hpx.PINNLoss(heat, **sizes, adaptive=False)


@pytest.fixture(params=["hyper", "concat"])
def model(request):
    """Either tiny model, in a test that holds for both."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def damaged():
    """The bytes of a file, cut off or with one bit flipped, at every so many places."""

    def cut_off(whole, every):
        line = whole.index(b"\n")
        for length in {*range(0, len(whole), every), len(whole) - 1, line, line + 1}:
            yield whole[:length]

    def flipped(whole, every):
        for place in range(0, len(whole), every):
            copy = bytearray(whole)
            copy[place] ^= 1 << place % 8
            yield bytes(copy)

    return types.SimpleNamespace(cut_off=cut_off, flipped=flipped)


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


@pytest.fixture(scope="module")
def few_lorenz_cases():
    """A Lorenz test set of four cases, and short long runs."""
    lam = jnp.array([[10, 1, 0.5], [10, 2, 10.0], [10, 8 / 3, 28], [10, 2, 26.0]])
    start = jnp.array([[1.0, 2, 3], [4, 5, 6], [1, -2, 20], [-3, 2, 15]])[:, None]
    true = hpx.simulate(hpx.Lorenz(), lam, start, duration=2.0)
    return true, hpx.long_run(hpx.Lorenz(), lam, start[:, 0], duration=40.0)
