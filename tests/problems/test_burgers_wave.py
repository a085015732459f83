import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

exact = hpx.BurgersWave().exact
LAMS = [(0.5, 0.0), (1.5, 0.25), (1.0, -0.8)]


@pytest.mark.parametrize("lam", LAMS, ids=str)
def test_the_wave_solves_the_equation(lam, order_of, x64):
    # Central differences of order four.
    first = np.array([1, -8, 0, 8, -1]) / 12
    second = np.array([-1, 16, -30, 16, -1]) / 12
    lam, steps, errors = np.array(lam), np.arange(-2, 3), []
    for h in (0.02, 0.01, 0.005):
        r = []
        for t, x in ((0.2, 0.4), (0.6, -0.9), (0.9, lam[1] + 0.1)):
            over_x = exact(t, x + h * steps, lam)
            u, u_x, u_xx = over_x[2], over_x @ first / h, over_x @ second / h**2
            u_t = exact(t + h * steps, x, lam) @ first / h
            words = {"t": jnp.array(u_t), "x": jnp.array(u_x), "xx": jnp.array(u_xx)}
            jet = hpx.Jet(jnp.array(u), words)
            point = jnp.array([t, x])
            r.append(hpx.BurgersWave().residual(jet, point, jnp.asarray(lam)))
        errors.append(np.max(np.abs(r)))
    order = order_of([4, 2, 1], errors)
    assert errors[-1] < 1e-3
    assert 3.5 < order < 4.5


def test_the_residual_is_burgers():
    words = {"t": jnp.array(3.0), "x": jnp.array(5.0), "xx": jnp.array(7.0)}
    r = hpx.BurgersWave().residual(
        hpx.Jet(jnp.array(2.0), words), jnp.zeros(2), jnp.array([1.0, 0.0])
    )
    np.testing.assert_allclose(r, 3 + 2 * 5 - 0.05 * 7, rtol=1e-6)


def test_the_phase_shifts_the_wave_around_the_ring():
    t, x = np.linspace(0, 1, 4)[:, None], np.linspace(-1, 1, 7)
    for phi in (0.3, -0.9, 1.0):
        shifted = exact(t, x, np.array([1.2, phi]))
        still = exact(t, x - phi, np.array([1.2, 0.0]))
        np.testing.assert_allclose(shifted, still, rtol=0, atol=1e-13)
        for turned in (
            exact(t, x + 2, np.array([1.2, phi])),
            exact(t, x, np.array([1.2, phi - 4])),
        ):
            np.testing.assert_allclose(turned, shifted, rtol=0, atol=1e-12)


def test_half_a_turn_is_the_wave_upside_down():
    t, x = np.linspace(0, 1, 4)[:, None], np.linspace(-1, 1, 7)
    up, down = (exact(t, sign * x, np.array([0.7, 0.0])) for sign in (1, -1))
    np.testing.assert_allclose(down, -up, rtol=0, atol=1e-13)


def test_a_wave_of_height_one_is_the_papers():
    t, x = np.linspace(0, 1, 4)[:, None], np.linspace(-1, 1, 7)
    papers = hpx.Burgers().exact(t, x, 0.05)
    np.testing.assert_allclose(
        exact(t, x, np.array([1.0, 0.0])), papers, rtol=0, atol=1e-14
    )


def test_it_starts_as_a_sine(x64):
    x = np.linspace(-1, 1, 9)
    for a, phi in LAMS:
        found = exact(0.0, x, np.array([a, phi]))
        np.testing.assert_allclose(found, -a * np.sin(np.pi * (x - phi)), rtol=1e-12)
        starts = [
            hpx.BurgersWave().initial(jnp.array([0.0, place]), jnp.array([a, phi]))
            for place in x
        ]
        np.testing.assert_allclose(starts, found, rtol=0, atol=1e-15)


def test_it_agrees_with_the_solver():
    # Which knows nothing of Cole and Hopf, and has the amplitude one.
    times = np.array([0.25, 1.0])
    x, u = hpx.burgers_reference(times, 0.05)
    found = exact(times[:, None], x, np.array([1.0, 0.0]))
    np.testing.assert_allclose(found, u, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((1.5, 0.0, [1.0, 0.0]), "t = 1.5, expected"),
        ((-0.1, 0.0, [1.0, 0.0]), "t = -0.1"),
        ((0.5, 0.0, [0.0, 0.0]), "lam: a = 0, expected"),
        ((0.5, 0.0, [51.0, 0.0]), "lam: a = 51, expected"),
    ],
    ids=str,
)
def test_arguments_outside_the_problem_are_errors(arguments, said):
    with pytest.raises(ValueError, match=said):
        exact(*arguments)


def test_a_ring_has_no_wall():
    assert hpx.BurgersWave.domain.periodic == (False, True)
    assert hpx.BurgersWave.parameters.periodic == (False, True)
