from fractions import Fraction
from operator import attrgetter

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.dynamics.multistep import (
    Multistep,
    adams_bashforth,
    adams_moulton,
    bdf,
    residual,
)

MAKERS = [adams_bashforth, adams_moulton, bdf]
EVERY = [make(k) for make in MAKERS for k in range(1, 11)]
LOW = [
    *map(adams_bashforth, range(1, 5)),
    *map(adams_moulton, range(1, 4)),
    *map(bdf, range(1, 5)),
]


def each(schemes):
    return pytest.mark.parametrize("scheme", schemes, ids=attrgetter("name"))


@each(EVERY)
def test_a_scheme_is_exact_for_polynomials_up_to_its_order_and_no_further(scheme):
    def defect(q, last=3):
        """Of x(t) = t^q around t = 3, in exact arithmetic."""
        times = [Fraction(last - j) for j in range(scheme.steps + 1)]
        states = sum(a * t**q for a, t in zip(scheme.alpha, times, strict=True))
        if q == 0:
            return states
        slopes = (b * t ** (q - 1) for b, t in zip(scheme.beta, times, strict=True))
        return states - q * sum(slopes)

    # What makes it the scheme of its name; the rest follows from exactness.
    kind, k = scheme.name.rsplit(" ", 1)
    assert scheme.steps == int(k) == len(scheme.beta) - 1 and scheme.alpha[0] == 1
    if kind == "BDF":
        assert not any(scheme.beta[1:])
    else:
        assert scheme.alpha[1] == -1 and not any(scheme.alpha[2:])
        assert (scheme.beta[0] == 0) == (kind == "Adams-Bashforth")
    assert scheme.order == scheme.steps + (kind == "Adams-Moulton")
    assert [defect(q) for q in range(scheme.order + 1)] == [0] * (scheme.order + 1)
    assert defect(scheme.order + 1) != 0


@each(LOW)
def test_the_residual_of_a_true_trajectory_falls_with_the_order(scheme, order_of, x64):
    steps = [0.1, 0.05, 0.025]

    @eqx.filter_jit
    def sizes():
        found = []
        for dt in steps:
            t = 0.3 + dt * jnp.arange(scheme.steps + 1.0)
            states = jnp.stack([jnp.cos(t), jnp.sin(t)], axis=1)
            r = residual(scheme, lambda x: jnp.stack([-x[1], x[0]]), states, dt)
            found.append(jnp.linalg.norm(r))
        # Every derivative of e^t is 1 at the last state, t = 0.
        states = jnp.exp(-0.01 * jnp.arange(scheme.steps, -1.0, -1.0))[:, None]
        return jnp.stack(found), residual(scheme, lambda x: x, states, 0.01)[0]

    found, leading = sizes()
    assert abs(order_of(steps, found) - scheme.order) < 0.1
    constant = leading / 0.01**scheme.order
    np.testing.assert_allclose(constant, scheme.error_constant, rtol=0.05)


def test_the_trapezoid_residual_is_equation_nine(x64):
    old, new = np.random.default_rng(0).normal(size=(2, 3))
    states = jnp.asarray(np.stack([old, new]))
    r = eqx.filter_jit(residual)(adams_moulton(1), jnp.sin, states, 0.1)
    expected = (new - old) / 0.1 - (np.sin(old) + np.sin(new)) / 2
    np.testing.assert_allclose(r, expected, rtol=1e-12)
    # With a single component, a field may be a scalar.
    for shape in ((), (1,)):
        field = lambda x, shape=shape: jnp.reshape(x**2, shape)  # noqa: E731
        r = residual(adams_moulton(1), field, jnp.array([[1.0], [1.5]]), 0.5)
        np.testing.assert_allclose(r, [1 - (1 + 1.5**2) / 2], rtol=1e-6)


@pytest.mark.parametrize(
    ("scheme", "calls"), [(adams_moulton(2), 3), (adams_bashforth(3), 3), (bdf(3), 1)]
)
def test_a_field_is_evaluated_only_where_its_weight_is_not_zero(scheme, calls):
    seen = []
    states = jnp.ones((scheme.steps + 1, 1))
    residual(scheme, lambda x: seen.append(x) or x, states, 1.0)
    assert len(seen) == calls


@pytest.mark.parametrize("shape", [(2, 2), (4, 2)], ids=str)
def test_another_number_of_states_is_an_error(shape):
    with pytest.raises(ValueError, match=r"states.*\(3, d\)"):
        residual(bdf(2), jnp.sin, jnp.ones(shape), 0.1)


@pytest.mark.parametrize(
    "value", [jnp.ones(1), 1.0, jnp.ones((2, 2)), "slope", None, 1j], ids=repr
)
def test_a_field_gives_a_real_slope_for_each_component(value, unchecked):
    with pytest.raises(ValueError, match=r"field\(x\)"):
        residual(adams_moulton(1), lambda x: value, jnp.ones((2, 2)), 0.1)


def test_a_network_computes_in_its_own_precision(computes_in_its_own_precision, getkey):
    spec = hpx.MainNetSpec((2, 5, 2), hpx.Box(x=(-2, 2), y=(-2, 2)))
    net = eqx.filter_jit(spec.init)(key=getkey())

    def r(net):
        return lambda states: residual(adams_bashforth(2), net, states, 0.1)

    states = np.random.default_rng(0).normal(size=(3, 2))
    computes_in_its_own_precision(r, net, states)


@pytest.mark.parametrize("make", MAKERS)
def test_there_are_schemes_of_one_to_ten_steps(make):
    assert (make(1).steps, make(10).steps) == (1, 10)
    for k in (0, 11):
        with pytest.raises(ValueError, match=f"k = {k}"):
            make(k)


def exact(*numbers):
    return tuple(map(Fraction, numbers))


def test_a_scheme_of_your_own():
    leapfrog = Multistep("leapfrog", exact(1, 0, -1), exact(0, 2, 0), 2)
    assert leapfrog.steps == 2
    np.testing.assert_allclose(leapfrog.error_constant, 1 / 3)
    Multistep("leapfrog", exact(1, 0, -1), exact(0, 2, 0), 1)  # of a lower order too


@pytest.mark.parametrize(
    ("alpha", "beta", "order"),
    [
        ((1, 0, -1), (0, 2, 0), 3),
        ((1, 0, -1), (0, 1, 0), 1),
        ((1, -0.9), (0.5, 0.5), 1),
        ((1, -1), (0.5, 0.5, 0), 2),
        ((1, -2, 1), (0, 0, 0), 1),
    ],
    ids=str,
)
def test_an_inconsistent_scheme_is_an_error(alpha, beta, order):
    with pytest.raises(ValueError, match=f"order = {order}"):
        Multistep("mine", exact(*alpha), exact(*beta), order)


@each(EVERY)
def test_which_schemes_converge_for_discovery(scheme):
    # Keller and Du 2021: the trapezoid rule, Adams-Bashforth up to six, and all BDF.
    kind, steps = scheme.name.rsplit(" ", 1)
    if int(steps) <= {"Adams-Moulton": 1, "Adams-Bashforth": 6, "BDF": 10}[kind]:
        scheme.check_discovery()
        assert scheme.discovery_root <= 1 + 1e-12
    else:
        assert scheme.discovery_root > 1.01
        with pytest.raises(ValueError, match=f"{scheme.discovery_root:.2f}"):
            scheme.check_discovery()


@each([adams_moulton(1), adams_moulton(2), adams_moulton(3), adams_bashforth(2)])
def test_an_error_in_a_slope_grows_by_the_discovery_root(scheme):
    # Slopes of x' = x from its exact states, one by one: from exact first slopes, and
    # from one that is wrong by 1.
    alpha = np.array(scheme.alpha, float)
    beta = np.trim_zeros(np.array(scheme.beta, float))
    n, known, dt = 25, len(beta) - 1, 0.01
    skip = int(scheme.beta[0] == 0)  # explicit schemes know no slope at the last state
    x = np.exp(dt * np.arange(n + 5))

    def slopes(error):
        """The recursion; the last of the first slopes is wrong by so much."""
        f = list(x[:known])
        f[-1] += error
        while len(f) < n:
            last = len(f) + skip
            wanted = alpha @ x[last - scheme.steps : last + 1][::-1] / dt
            f.append((wanted - beta[1:] @ f[: -known - 1 : -1]) / beta[0])
        return np.array(f)

    wrong = np.abs(slopes(1.0) - slopes(0.0))
    np.testing.assert_allclose(wrong[-1] / wrong[-2], scheme.discovery_root, rtol=1e-3)
    # From exact slopes the rest is as good as the scheme's order.
    if scheme.discovery_root <= 1:
        np.testing.assert_allclose(slopes(0.0), x[:n], rtol=1e-4)
