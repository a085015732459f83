"""What a function reads is what holds at the call, and no call keeps it alive.

Each case makes the call of one public function that takes a function, a problem or a
model: it gets `now`, whose `value` these read, and returns the call. A case is called
twice, with another value in between; the second answer has to be the new one.
"""

import gc
import types
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

AXIS = np.linspace(0, 1, 3)
POINTS = np.array([[0.25, 0.5], [0.75, 0.5]])
LAM, START = np.array([[1.0]]), np.ones((1, 1, 1))
CASES = {}


def case(function):
    """Adds a case to those that every test of this file goes through."""
    CASES[function.__name__] = function
    return function


class Now(types.SimpleNamespace):
    """What the functions of a case read."""


def _problem(now):
    """A family whose equation, conditions and solution change with the value."""

    class Growth(hpx.AbstractPDE):
        domain = hpx.Box(t=(0, 1), x=(0, 1))
        parameters = hpx.Box(a=(1, 2))

        def residual(self, u, tx, lam):
            return u.t - now.value * lam * u.value

        def initial(self, tx, lam):
            return now.value * tx[1]

        def boundary(self, tx, lam):
            return now.value * tx[1]

        def exact(self, t, x, lam):
            return now.value * lam * t * x

    return Growth()


def _model(now):
    """A model of the user's own, whose networks are plain functions."""

    class Product(hpx.AbstractModel):
        weight: jax.Array
        parameters: hpx.Box = eqx.field(static=True)

        def generate(self, scaled):
            return lambda p: now.value * self.weight[0] * (scaled[0] + p[0])

        def config(self):
            return {}

    return Product(jnp.ones(1), hpx.Box(a=(1, 2)))


def _family(now):
    return lambda lam: lambda x: -now.value * lam * x


def _net():
    main = hpx.MainNetSpec((2, 3, 1), hpx.Box(t=(0, 1), x=(0, 1)))
    return main.init(key=jax.random.key(0))


@case
def on_grid(now):
    def u(p):
        return now.value * p[0]

    return lambda: hpx.on_grid(u, AXIS, AXIS)


@case
def on_grid_of_a_model(now):
    model = _model(now)
    return lambda: hpx.on_grid(model(1.5), AXIS, AXIS)


@case
def plot_slices(now):
    from matplotlib.figure import Figure

    problem = _problem(now)
    nets = {"net": lambda p: now.value * p[0]}

    def call():
        ax = Figure().subplots()
        hpx.plot_slices(ax, 1.5, nets, [0.5], problem=problem)
        return [line.get_ydata() for line in ax.get_lines()]

    return call


@case
def family_error_of_a_problem(now):
    problem = _problem(now)
    main = hpx.MainNetSpec((2, 3, 1), problem.domain)
    model = hpx.ConcatPINN(main, problem.parameters, key=jax.random.key(0))
    return lambda: hpx.family_error(model, problem, n_lam=2, n_t=2, n_x=3).mse


@case
def family_error_of_a_model(now):
    model, problem = _model(now), _problem(Now(value=1.0))
    return lambda: hpx.family_error(model, problem, n_lam=2, n_t=2, n_x=3).mse


@case
def simulate(now):
    family = _family(now)
    options = {"duration": 0.2, "dt": 0.1}
    return lambda: hpx.simulate(family, LAM, START, **options).states


@case
def long_run(now):
    family = _family(now)
    options = {"duration": 0.2, "dt": 0.1}
    return lambda: hpx.long_run(family, LAM, START[0], **options).lyapunov


@case
def field_error(now):
    family = _family(now)
    true = hpx.Trajectories(LAM, START, 0.1, [[True]])
    return lambda: hpx.field_error(family, lambda lam: lambda x: x, true)[0]


@case
def field_error_of_the_exact_one(now):
    family = _family(now)
    true = hpx.Trajectories(LAM, START, 0.1, [[True]])
    return lambda: hpx.field_error(lambda lam: lambda x: x, family, true)[0]


@case
def jets(now):
    def u(p):
        return now.value * p[0] * p[1] ** 2

    return lambda: [*hpx.jets(u, POINTS).derivatives.values()]


@case
def residuals(now):
    net, problem = _net(), _problem(now)
    return lambda: hpx.residuals(net, problem, [1.5], POINTS)


@case
def remove_bias(now):
    field = hpx.remove_bias(lambda x: now.value * x**2, hpx.bdf(2), 0.1)
    return lambda: field(jnp.ones(1))


@case
def add_bias(now):
    field = hpx.add_bias(lambda x: now.value * x**2, hpx.bdf(2), 0.1)
    return lambda: field(jnp.ones(1))


def _numbers(tree):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])


@pytest.mark.parametrize("case", CASES)
def test_a_call_reads_what_holds_now(case):
    now = Now(value=1.0)
    call = CASES[case](now)
    first = _numbers(call())
    now.value = 3.0
    second = _numbers(call())
    fresh = _numbers(CASES[case](Now(value=3.0))())
    np.testing.assert_allclose(second, fresh, rtol=1e-6)
    assert not np.allclose(first, second, rtol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_a_call_keeps_nothing_alive(case):
    now = Now(value=np.ones(1))
    CASES[case](now)()
    gone = weakref.ref(now)
    del now
    gc.collect()
    assert gone() is None


@pytest.fixture
def compilations():
    """A list that grows by one whenever JAX compiles a program."""
    found = []

    def listen(event, seconds, **rest):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(rest)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("case", CASES)
def test_other_arrays_are_no_other_program(case, compilations):
    CASES[case](Now(value=np.ones(1)))()
    before = len(compilations)
    CASES[case](Now(value=np.full(1, 3.0)))()
    assert len(compilations) == before
