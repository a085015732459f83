"""What a function reads is what holds at the call, and no call keeps it alive.

Each case makes the call of one public function that takes a function, a problem or a
model: it gets `now`, whose `value` these read, and returns the call. A case is called
twice, with another value in between; the second answer has to be the new one.
"""

import gc
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

AXIS = np.linspace(0, 1, 3)
POINTS = np.array([[0.25, 0.5], [0.75, 0.5]])
MAIN = hpx.MainNetSpec((2, 3, 1), hpx.Box(t=(0, 1), x=(0, 1)))
NET = MAIN.init(key=jax.random.key(0))
LAM, START = np.array([[1.0]]), np.ones((1, 1, 1))
CASES = {}


def case(function):
    """Adds a case to those that every test of this file goes through."""
    CASES[function.__name__] = function
    return function


class Now:
    """What the functions of a case read: a number, or an array that holds one."""

    def __init__(self, value):
        self.value = value

    def __call__(self, like):
        return jnp.asarray(self.value, like.dtype).reshape(())


class Growth(hpx.AbstractPDE):
    """A family whose equation, conditions and solution change with the value."""

    now: Now = eqx.field(static=True)
    domain = hpx.Box(t=(0, 1), x=(0, 1))
    parameters = hpx.Box(a=(1, 2))
    derivatives = ("t",)

    def residual(self, u, tx, lam):
        return u.t - self.now(u.t) * lam * u.value

    def initial(self, tx, lam):
        return self.now(tx) * tx[1]

    def boundary(self, tx, lam):
        return self.now(tx) * tx[1]

    def exact(self, t, x, lam):
        return float(self.now.value[0]) * lam * t * x


class Scaled(hpx.AbstractModel):
    """A model of the user's own, whose networks change with the value."""

    now: Now = eqx.field(static=True)
    theta: jax.Array
    parameters: hpx.Box = eqx.field(static=True, default=Growth.parameters)

    def generate(self, scaled):
        size = self.now(self.theta) * (2 + scaled[0])
        return MAIN.unflatten(size * self.theta)

    def config(self):
        return {}


def _family(now):
    return lambda lam: lambda x: -now(x) * lam * x


@case
def on_grid(now):
    def u(p):
        return now(p) * p[0]

    return lambda: hpx.on_grid(u, AXIS, AXIS)


@case
def on_grid_of_a_model(now):
    model = Scaled(now, NET.flatten())
    return lambda: hpx.on_grid(model(1.5), AXIS, AXIS)


@case
def plot_slices(now):
    from matplotlib.figure import Figure

    problem = Growth(now)
    nets = {"net": lambda p: now(p) * p[0]}

    def call():
        ax = Figure().subplots()
        hpx.plot_slices(ax, 1.5, nets, [0.5], problem=problem)
        return [line.get_ydata() for line in ax.get_lines()]

    return call


@case
def family_error_of_a_problem(now):
    problem = Growth(now)
    model = hpx.ConcatPINN(MAIN, problem.parameters, key=jax.random.key(0))
    return lambda: hpx.family_error(model, problem, n_lam=2, n_t=2, n_x=3).mse


@case
def family_error_of_a_model(now):
    model, problem = Scaled(now, NET.flatten()), Growth(Now(jnp.ones(1)))
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
    true = hpx.Trajectories(LAM, START[None], 0.1, np.array([[True]]))
    return lambda: hpx.field_error(family, lambda lam: lambda x: x, true)[0]


@case
def field_error_of_the_exact_one(now):
    family = _family(now)
    true = hpx.Trajectories(LAM, START[None], 0.1, np.array([[True]]))
    return lambda: hpx.field_error(lambda lam: lambda x: x, family, true)[0]


@case
def jets(now):
    def u(p):
        return now(p) * p[0] * p[1] ** 2

    return lambda: [*hpx.jets(u, POINTS).derivatives.values()]


@case
def residuals(now):
    net, problem = NET, Growth(now)
    return lambda: hpx.residuals(net, problem, np.array([1.5]), POINTS)


@case
def remove_bias(now):
    field = hpx.remove_bias(lambda x: now(x) * x**2, hpx.bdf(2), 0.1)
    return lambda: field(jnp.ones(1))


@case
def add_bias(now):
    field = hpx.add_bias(lambda x: now(x) * x**2, hpx.bdf(2), 0.1)
    return lambda: field(jnp.ones(1))


@case
def pinn_loss(now):
    model = hpx.ConcatPINN(MAIN, Growth.parameters, key=jax.random.key(0))
    batch = hpx.Batch(np.array([[1.5]]), POINTS[None], POINTS, POINTS)
    return lambda: hpx.pinn_loss(model, Growth(now), batch).terms


@case
def infer(now):
    def predict(lam):
        return now(lam) * lam * jnp.arange(1.0, 6.0)

    readings, box = 1.5 * np.arange(1.0, 6.0), hpx.Box(a=(0.2, 4.0))
    return lambda: hpx.infer(predict, readings, box, noise=0.01, samples=64).lam


def _in_float64(make):
    """A case for what computes in float64 only."""

    def made(now):
        with jax.enable_x64(True):
            call = make(now)

        def run():
            with jax.enable_x64(True):
                return call()

        return run

    made.__name__ = make.__name__
    return made


def _model():
    return hpx.HyperPINN(MAIN, Growth.parameters, (2,), key=jax.random.key(0))


@case
@_in_float64
def gauss_newton(now):
    model, at = _model(), jnp.asarray(POINTS)

    def row(net, lam, item):
        return net(item) - now(lam) * lam[0] * item[1]

    def draw(model, key):
        return jnp.array([[1.0], [2.0]]), jnp.broadcast_to(at, (2, 2, 2))

    options = {"steps": 2, "key": jax.random.key(1), "progress": False}
    return lambda: hpx.gauss_newton(model, row, draw, **options).model.theta0


def _rows(now):
    return hpx.PINNRows(Growth(now), POINTS, POINTS, n_points=3)


@case
@_in_float64
def gauss_newton_of_a_problem(now):
    model, rows = _model(), _rows(now)
    options = {"steps": 2, "key": jax.random.key(1), "progress": False}

    def draw(model, key):
        return rows.batch(model, key, 2)

    return lambda: hpx.gauss_newton(model, rows, draw, **options).model.theta0


@case
@_in_float64
def rows_of_a_problem(now):
    model, rows, lams = _model(), _rows(now), jnp.array([[1.0], [2.0]])
    return lambda: rows.draw(model, lams, jax.random.key(1))[1].target


@case
@_in_float64
def follow(now):
    net, rows = MAIN.init(key=jax.random.key(0)), _rows(now)
    options = {"first": 2, "steps": 1, "key": jax.random.key(1), "progress": False}
    return lambda: hpx.follow(net, rows, jnp.array([[1.0], [2.0]]), **options).model


@case
@_in_float64
def estimate_error(now):
    model, problem = _model(), Growth(now)
    options = {"n_lam": 2, "n_points": 20}
    return lambda: (
        hpx.estimate_error(model, problem, **options, key=jax.random.key(1)).mse
    )


@case
@_in_float64
def train_family(now):
    problem = Growth(now)
    options = {"main": (3,), "hidden": (2,), "n_lam": 2, "n_points": 3, "rank": 4}
    options |= {"adam_steps": 2, "newton_steps": 2, "n_conditions": (2, 2)}
    options |= {"progress": False}

    def call():
        result = hpx.train_family(problem, **options, key=jax.random.key(1))
        return [result.model(1.5)(point) for point in POINTS]

    return call


def _numbers(tree):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])


@pytest.mark.parametrize("case", CASES)
def test_a_call_reads_what_holds_now(case):
    now = Now(jnp.ones(1))
    call = CASES[case](now)
    first = _numbers(call())
    now.value = jnp.full(1, 3.0)
    second = _numbers(call())
    fresh = _numbers(CASES[case](Now(jnp.full(1, 3.0)))())
    np.testing.assert_allclose(second, fresh, rtol=1e-6)
    assert not np.allclose(first, second, rtol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_a_call_keeps_nothing_alive(case):
    now = Now(jnp.ones(1))
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


# The units in which `train_family` computes change with the value, and are constants.
@pytest.mark.parametrize("case", [name for name in CASES if name != "train_family"])
def test_other_arrays_are_no_other_program(case, compilations):
    CASES[case](Now(jnp.ones(1)))()
    before = len(compilations)
    CASES[case](Now(jnp.full(1, 3.0)))()
    assert len(compilations) == before
