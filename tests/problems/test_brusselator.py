"""The Brusselator: its reference solves the equation, and has converged."""

import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.problems import brusselator

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("B", [1.0, 2.2, 3.0])
def test_the_reference_solves_the_equation(B):
    problem, D = hpx.Brusselator(), 1 / 50
    t, x = np.array([0.5, 2.0, 4.5])[:, None], np.linspace(0.1, 0.9, 7)
    e = 1e-2
    u, v = problem.exact(t, x, B)
    before, after = problem.exact(t - e, x, B), problem.exact(t + e, x, B)
    left, right = problem.exact(t, x - e, B), problem.exact(t, x + e, B)
    u_t, v_t = ((b - a) / (2 * e) for a, b in zip(before, after, strict=True))
    u_xx, v_xx = (
        (a - 2 * f + b) / e**2 for a, f, b in zip(left, (u, v), right, strict=True)
    )
    np.testing.assert_allclose(u_t, 1 + u**2 * v - (B + 1) * u + D * u_xx, atol=5e-3)
    np.testing.assert_allclose(v_t, B * u - u**2 * v + D * v_xx, atol=5e-3)


def test_the_reference_meets_the_conditions():
    problem, x = hpx.Brusselator(), np.linspace(0, 1, 11)
    u, v = problem.exact(np.array([[0.0], [3.0]]), x, 2.5)
    np.testing.assert_allclose(u[0], 1 + np.sin(2 * np.pi * x), atol=1e-9)
    np.testing.assert_allclose(v[0], 2.5, atol=1e-9)
    np.testing.assert_allclose(u[:, [0, -1]], 1, atol=1e-9)
    np.testing.assert_allclose(v[:, [0, -1]], 2.5, atol=1e-9)


def test_it_comes_to_rest_where_the_steady_state_is_stable():
    problem, x = hpx.Brusselator(), np.linspace(0, 1, 11)
    away = [np.abs(problem.exact(6.0, x, B)[0] - 1).max() for B in (1.0, 3.0)]
    assert away[0] < 0.01 < 0.1 < away[1]


def test_the_reference_has_converged(monkeypatch):
    problem, t, x = hpx.Brusselator(), np.linspace(0, 6, 7)[:, None], np.linspace(0, 1)
    coarse = problem.exact(t, x, 3.0)
    monkeypatch.setattr(brusselator, "_N", 56)
    for one, other in zip(coarse, problem.exact(t, x, 3.0), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
