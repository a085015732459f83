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
import jax.random as jr
import numpy as np
import optax
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.physics.sampling import Places

AXIS = np.linspace(0, 1, 3)
POINTS = np.array([[0.25, 0.5], [0.75, 0.5]])
MAIN = hpx.MainNetSpec((2, 3, 1), hpx.Box(t=(0, 1), x=(0, 1)))
NET = MAIN.init(key=jr.key(0))
LAM, START = np.array([[1.0]]), np.ones((1, 1, 1))
CASES = {}


def case(function):
    """Adds a case to those that every test of this file goes through."""
    CASES[function.__name__] = function
    return function


def quick(**options):
    """Options of a training, with a new key."""
    return {"key": jr.key(1), "progress": False} | options


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

    def residual(self, u, tx, lam):
        return u.t - self.now(u.t) * lam * u.value

    @hpx.condition(t=0)
    def start(self, u, tx, lam):
        return u.value - self.now(tx) * tx[1]

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
    model = hpx.ConcatPINN(MAIN, problem.parameters, key=jr.key(0))
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
    true = hpx.Trajectories(LAM, START[None], 0.1, np.array([[True]]))

    def call():
        other, family = _family(Now(np.full(1, 0.5))), _family(now)
        pairs = (family, other), (other, family)
        return [hpx.field_error(*pair, true)[0] for pair in pairs]

    return call


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
def bias(now):
    biases = (hpx.remove_bias, hpx.add_bias)
    fields = [bias(lambda x: now(x) * x**2, hpx.bdf(2), 0.1) for bias in biases]
    return lambda: [field(jnp.ones(1)) for field in fields]


@case
def infer(now):
    def predict(lam):
        return now(lam) * lam * jnp.arange(1.0, 6.0)

    readings, box = 1.5 * np.arange(1.0, 6.0), hpx.Box(a=(0.2, 4.0))
    return lambda: hpx.infer(predict, readings, box, noise=0.01, samples=64).lam


def _model(dtype):
    model = hpx.HyperPINN(MAIN, Growth.parameters, (2,), key=jr.key(0))
    return hpx.cast(model, dtype)


def _loss(now, **options):
    options = {"n_lam": 2, "n_points": 3, "n_conditions": 2} | options
    return hpx.PINNLoss(Growth(now), **options)


@case
def pinn_loss(now):
    model, loss = _model("float32"), _loss(now)
    start = Places(*jnp.zeros((2, 1, 2, 2)).at[..., 1].set(0.5))
    batch = hpx.Batch([[1.5]], {"physics": POINTS[None], "start": start})
    return lambda: loss(model, batch).terms


@case
def sample_of_a_loss(now):
    # Where the residual is large, points gather.
    def sample_lam(box, n, *, key):
        return 1 + jnp.full((n, 1), now(jnp.ones(())) / 10)

    model, loss = _model("float32"), _loss(Now(jnp.ones(1)), sample_lam=sample_lam)
    return lambda: loss.sample(model, key=jr.key(0))


@case
def fit(now):
    model, loss, adam = _model("float32"), _loss(now), optax.adam(0.1)
    return lambda: hpx.fit(model, loss, adam, steps=2, **quick()).model


@case
def gauss_newton(now):
    model, loss = _model("float64"), _loss(now)
    return lambda: hpx.gauss_newton(model, loss, steps=2, **quick()).model


class Own(hpx.AbstractLeastSquares):
    """A loss of the user's own."""

    now: Now = eqx.field(static=True)

    @property
    def terms(self):
        def residuals(net, lam, points):
            return jax.vmap(net)(points) - self.now(lam) * lam[0]

        return {"own": hpx.Term(residuals)}

    def sample(self, model, *, key):
        return hpx.Batch(np.array([[1.0], [2.0]]), {"own": np.array([POINTS, POINTS])})


@case
def gauss_newton_of_an_own_loss(now):
    model, loss = _model("float64"), Own(now)
    return lambda: hpx.gauss_newton(model, loss, steps=2, **quick()).model


@case
def continuation(now):
    net, loss = hpx.cast(NET, "float64"), _loss(now)
    options = {"first": 2, "steps": 1}
    return lambda: hpx.continuation(net, loss, [[1], [2]], **quick(**options)).model


@case
def estimate_error(now):
    model, problem = _model("float32"), Growth(now)
    options = {"n_lam": 2, "n_points": 20}
    return lambda: hpx.estimate_error(model, problem, **options, key=jr.key(1)).mse


@case
def train_family(now):
    problem = Growth(now)
    options = {"main": (3,), "hidden": (2,), "n_lam": 2, "n_points": 3, "rank": 4}
    options |= {"adam_steps": 2, "newton_steps": 2, "n_conditions": 2}

    def call():
        result = hpx.train_family(problem, **quick(**options))
        return [result.model(1.5)(point) for point in POINTS]

    return call


def _numbers(tree):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])


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


# `fit` compiles its steps each time. The units in which `train_family` computes change
# with the value, and are constants.
COMPILED_AGAIN = {"fit", "train_family"}


def _once(case, value):
    """What a call returns, and whether what it read is still alive."""
    now = Now(value)
    found = _numbers(CASES[case](now)())
    return found, weakref.ref(now)


@pytest.mark.parametrize("case", CASES)
def test_a_call_reads_what_holds_now_and_keeps_nothing(case, compilations):
    now = Now(jnp.ones(1))
    call = CASES[case](now)
    first = _numbers(call())
    now.value = jnp.full(1, 3.0)
    second = _numbers(call())
    before = len(compilations)
    fresh, alive = _once(case, now.value)
    # Other arrays are no other program.
    assert case in COMPILED_AGAIN or len(compilations) == before
    np.testing.assert_allclose(second, fresh, rtol=1e-6)
    assert not np.allclose(first, second, rtol=1e-3)
    gc.collect()
    assert alive() is None
