import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

exact = hpx.BurgersWave().exact
LAMS = [(0.5, 0.0), (1.5, 0.25), (1.0, -0.8)]
T, X = np.linspace(0, 1, 4)[:, None], np.linspace(-1, 1, 7)


def wave(a, phi, t=T, x=X):
    return exact(t, x, np.array([a, phi]))


def assert_same(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lam", LAMS, ids=str)
def test_the_wave_solves_the_equation(lam, order_of, x64):
    # Central differences of order four.
    first = np.array([1, -8, 0, 8, -1]) / 12
    second = np.array([-1, 16, -30, 16, -1]) / 12
    steps, errors = np.arange(-2, 3), []
    for h in (0.02, 0.01, 0.005):
        r = []
        for t, x in ((0.2, 0.4), (0.6, -0.9), (0.9, lam[1] + 0.1)):
            over_x = wave(*lam, t, x + h * steps)
            u, u_x, u_xx = over_x[2], over_x @ first / h, over_x @ second / h**2
            u_t = wave(*lam, t + h * steps, x) @ first / h
            words = {"t": jnp.array(u_t), "x": jnp.array(u_x), "xx": jnp.array(u_xx)}
            jet = hpx.Jet(jnp.array(u), words)
            point = jnp.array([t, x])
            r.append(hpx.BurgersWave().residual(jet, point, jnp.array(lam)))
        errors.append(np.max(np.abs(r)))
    order = order_of([4, 2, 1], errors)
    assert errors[-1] < 1e-3
    assert 3.5 < order < 4.5


def test_the_phase_shifts_the_wave_around_the_ring():
    for phi in (0.3, -0.9, 1.0):
        shifted = wave(1.2, phi)
        assert_same(shifted, wave(1.2, 0.0, x=X - phi))
        assert_same(shifted, wave(1.2, phi, x=X + 2))
        assert_same(shifted, wave(1.2, phi - 4))
    # Half a turn is the wave upside down.
    assert_same(wave(0.7, 0.0, x=-X), -wave(0.7, 0.0))


def test_a_wave_of_height_one_is_the_papers():
    assert_same(wave(1.0, 0.0), hpx.Burgers().exact(T, X, 0.05))


def test_it_starts_as_a_sine(x64):
    for a, phi in LAMS:
        expected = -a * np.sin(np.pi * (X - phi))
        assert_same(wave(a, phi, 0.0), expected)
        lam = jnp.array([a, phi])
        u = hpx.Jet(jnp.array(2.0), {})
        starts = [hpx.BurgersWave().start(u, jnp.array([0.0, x]), lam) for x in X]
        assert_same(starts, 2 - expected)


def test_it_agrees_with_the_solver():
    # Which knows nothing of Cole and Hopf, and has the amplitude one.
    times = np.array([0.25, 1.0])
    x, u = hpx.burgers_reference(times, 0.05)
    found = wave(1.0, 0.0, times[:, None], x)
    np.testing.assert_allclose(found, u, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "a", "t"),
    [("t", 1.0, 1.5), ("t", 1.0, -0.1), ("lam", 0.0, 0.5), ("lam", 51.0, 0.5)],
)
def test_arguments_outside_the_problem_are_errors(name, a, t):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        wave(a, 0.0, t)
