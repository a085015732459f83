import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from hyperpinn_eqx import Burgers, Jet

exact = Burgers().exact


def quadrature(t, x, nu):
    """Cole-Hopf as a mean of η/t with the weight exp(-G / 2ν), with 30 digits.

    G = ∫₀ʸ u₀ + η²/2t at y = x - η. The trapezoid rule converges exponentially: its
    step is half the width of the narrowest peak (or resolves 40 harmonics of the
    weight, if there is no peak), and its window ends at 1e-30.
    """
    with mp.workdps(30):
        t, x, nu = mp.mpf(t), mp.mpf(x), mp.mpf(nu)
        width = mp.sqrt(4 * t / mp.pi + 280 * nu * t)
        step = min(mp.sqrt(2 * nu * t / (1 + mp.pi * t)) / 2, mp.mpf(1) / 20)
        n = int(width / step) + 1
        top = bottom = mp.mpf(0)
        for η in (i * step for i in range(-n, n + 1)):
            G = (mp.cos(mp.pi * (x - η)) - 1) / mp.pi + η**2 / (2 * t)
            weight = mp.exp(-G / (2 * nu))
            top += η / t * weight
            bottom += weight
        return float(top / bottom)


@pytest.mark.parametrize(
    ("t", "x", "nu"),
    [
        (1e-6, 0.3, 0.1),
        (1e-6, -0.7, 0.001),
        (1e-3, 0.5, 0.001),
        (0.3, 0.01, 0.001),
        (0.5, -0.25, 0.01),
        (0.6, 0.002, 0.003),
        (1.0, 1e-4, 0.001),
        (1.0, 0.999, 0.001),
        (1.0, 0.6, 0.01),
        (1.0, -0.4, 0.1),
        # Above the range it is as good, until it has decayed.
        *((0.5, 0.3, nu) for nu in (0.3, 2, 50)),
        (1.0, 0.3, 3.9),
        (1e-3, 0.3, 4.1),
        (1.0, 0.3, 4.1),
    ],
)
def test_exact_agrees_with_an_independent_quadrature(t, x, nu):
    assert abs(exact(t, x, nu) - quadrature(t, x, nu)) <= 1e-12


@pytest.mark.parametrize("nu", [0.001, 0.003, 0.03, 0.1])
def test_exact_solves_the_equation(nu):
    # Central differences of order eight, about as wide as the shock.
    half = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5])
    first = np.concatenate([half, [0], -half[::-1]])
    half = np.array([-1 / 560, 8 / 315, -1 / 5, 8 / 5])
    second = np.concatenate([half, [-205 / 72], half[::-1]])
    h, k, steps = min(0.3 * nu, 0.01), min(0.1 * nu, 1e-3), np.arange(-4, 5)
    for t, x in ((0.2, 0.4), (0.6, 2 * nu), (0.9, -0.5)):
        over_x = exact(t, x + h * steps, nu)
        over_t = exact(t + k * steps, x, nu)
        u, u_x, u_xx = over_x[4], over_x @ first / h, over_x @ second / h**2
        u_t, scale = over_t @ first / k, 1 + abs(u * u_x)
        assert abs(u_t + u * u_x - nu * u_xx) / scale < 1e-4


def test_exact_starts_at_the_sine_is_odd_and_vanishes_at_the_walls(x64):
    x = np.linspace(-1, 1, 11)
    start = exact(0, x, 0.01)
    np.testing.assert_array_equal(start, -np.sin(np.pi * x))
    np.testing.assert_allclose(exact(1e-10, x, 0.01), start, rtol=0, atol=1e-9)
    t = np.array([[0.0], [0.4], [1.0]])
    u = exact(t, x, 0.002)
    np.testing.assert_allclose(u[:, ::-1], -u, rtol=0, atol=1e-13)
    np.testing.assert_allclose(u[:, [0, -1]], np.zeros((3, 2)), rtol=0, atol=1e-13)
    u, lam = Jet(jnp.array(2.0), {}), jnp.array(0.01)
    assert Burgers().start(u, jnp.array([0, 0.5]), lam) == 2 + 1
    assert Burgers().walls(u, jnp.array([0.7, 1]), lam) == 2


def test_broadcasting_is_evaluating_point_by_point():
    t = np.array([0.0, 0.3, 1.0])[:, None, None]
    x = np.array([-0.9, -0.01, 0.5, 0.0])[:, None]
    nu = np.array([0.1, 0.001])
    together = exact(t, x, nu)
    assert together.shape == (3, 4, 2)
    for index in np.ndindex(3, 4, 2):
        one = exact(t[index[0], 0, 0], x[index[1], 0], nu[index[2]])
        assert abs(together[index] - one) < 1e-14
    assert exact(np.zeros(0), 0.5, 0.01).shape == (0,)


def test_float32_and_jax_arrays_are_evaluated_in_float64():
    t, x, nu = np.float32(0.5), jnp.linspace(-1, 1, 5), np.float32(0.001)
    u = exact(t, x, nu)
    assert u.dtype == np.float64
    np.testing.assert_array_equal(u, exact(0.5, np.linspace(-1, 1, 5), float(nu)))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("t", (t, 0, 0.01)) for t in (1.1, -0.1, np.nan)),
        ("x", (0.5, np.array([0, 1.5]), 0.01)),
        *(("nu", (0.5, 0, nu)) for nu in (5e-4, -1, np.inf)),
    ],
)
def test_arguments_outside_the_problem_are_errors(name, arguments):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        exact(*arguments)
