import itertools

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

uniform = eqx.filter_jit(hpx.uniform)
BOX = hpx.Transport.parameters
CORNERS = [*itertools.product(*zip(BOX.low, BOX.high, strict=True))]


@pytest.mark.parametrize("lam", [*CORNERS, (0.4, 0.02, 0.7)], ids=str)
def test_the_pulse_solves_the_equation(lam, x64, getkey, residual_of):
    problem = hpx.Transport()
    lam = jnp.array(lam)
    points = uniform(hpx.Transport.domain, (40,), key=getkey())
    r = residual_of(problem, lam, lam, points)
    np.testing.assert_allclose(r, np.zeros(40), rtol=0, atol=1e-12)
    for i in range(3):
        wrong = residual_of(problem, lam.at[i].add(0.1), lam, points)
        assert jnp.max(jnp.abs(wrong)) > 1e-3


def test_the_residual_is_the_equation():
    words = {"t": jnp.array(3.0), "x": jnp.array(5.0), "xx": jnp.array(7.0)}
    u = hpx.Jet(jnp.array(2.0), words)
    r = hpx.Transport().residual(u, jnp.zeros(2), jnp.array([0.25, 0.5, 1.5]))
    assert r == 3 + 0.25 * 5 - 0.5 * 7 + 1.5 * 2


def test_the_pulse_starts_as_a_gaussian_for_every_parameter(x64):
    x = np.linspace(0, 2, 9)
    for lam in CORNERS:
        found = hpx.Transport().exact(0.0, x, np.array(lam))
        np.testing.assert_allclose(found, np.exp(-((x - 0.5) ** 2) / 0.045), rtol=1e-13)


def test_the_conditions_are_those_of_the_pulse(x64):
    problem, lam = hpx.Transport(), jnp.array([0.3, 0.01, 1.0])
    for point in ([0.0, 0.6], [0.7, 0.0], [1.0, 2.0]):
        expected = problem.exact(*point, lam)
        assert problem.initial(jnp.array(point), lam) == expected
        assert problem.boundary(jnp.array(point), lam) == expected


def solve(lam, n):
    """u(1, x) by the method of lines: central differences of order two, Diffrax."""
    c, D, r = lam
    x = jnp.linspace(0, 2, n + 1)
    h = 2 / n

    def slope(t, inside, _):
        # Written without the exact solution: it is zero at walls far from the pulse.
        u = jnp.pad(inside, 1)
        u_x = (u[2:] - u[:-2]) / (2 * h)
        u_xx = (u[2:] - 2 * u[1:-1] + u[:-2]) / h**2
        return D * u_xx - c * u_x - r * inside

    start = jnp.exp(-((x[1:-1] - 0.5) ** 2) / (2 * 0.15**2))
    with jax.numpy_dtype_promotion("standard"):
        solution = dfx.diffeqsolve(
            dfx.ODETerm(slope),
            dfx.Tsit5(),
            t0=0.0,
            t1=1.0,
            dt0=None,
            y0=start,
            stepsize_controller=dfx.PIDController(rtol=1e-8, atol=1e-10),
        )
    return x, jnp.pad(solution.ys[0], 1)


def test_a_solver_comes_to_the_same_pulse_with_its_order(order_of, x64):
    lam, sizes = np.array([0.6, 2e-3, 0.8]), np.array([64, 128, 256])
    errors = []
    for n in sizes:
        x, u = jax.jit(solve, static_argnums=1)(lam, int(n))
        gap = u - hpx.Transport().exact(1.0, x, lam)
        errors.append(float(jnp.sqrt(jnp.mean(gap**2))))
    order = order_of(1 / sizes, errors)
    assert 1.8 < order < 2.2 and errors[-1] < 1e-3


def test_coordinates_broadcast(x64):
    problem, lam = hpx.Transport(), np.array([0.3, 0.01, 1.0])
    t, x = np.linspace(0, 1, 3)[:, None], np.linspace(0, 2, 5)[None]
    u = problem.exact(t, x, lam)
    assert u.shape == (3, 5)
    np.testing.assert_array_equal(u[2, 1], problem.exact(1.0, 0.5, lam))
