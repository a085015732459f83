"""The heated conductor: its reference, and what symmetry and a balance of heat say."""

import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.problems import conductor

pytestmark = pytest.mark.usefixtures("x64")


def half(x, s):
    return (1 + s * np.cos(2 * np.pi * (x - 0.5))) / 4


def test_a_straight_conductor_has_a_parabola():
    x, y = np.linspace(0, 1, 9)[:, None], np.linspace(0, 0.25, 4)
    v, T = hpx.Conductor().exact(x, y, np.array([0.0, 0.0]))
    np.testing.assert_allclose(v, x - 0.5 + 0 * y, atol=1e-9)
    np.testing.assert_allclose(T, x * (1 - x) / 2 + 0 * y, atol=1e-9)


@pytest.mark.parametrize("lam", [(0.4, 0.0), (-0.3, 2.0), (0.6, 4.0)])
def test_it_mirrors_and_loses_the_heat_that_the_current_makes(lam):
    problem, lam = hpx.Conductor(), np.array(lam)
    s, h = lam
    x = np.linspace(0, 1, 41)[:, None]
    y = half(x, s) * np.linspace(0, 1, 21)
    v, T = problem.exact(x, y, lam)
    np.testing.assert_allclose(v, -v[::-1], atol=1e-4)
    np.testing.assert_allclose(T, T[::-1], atol=1e-4)
    assert np.all(T > -1e-4)
    # The power is the current times the voltage at the ends, on the average there.
    power = np.trapezoid(v[-1] - v[0], y[0]) / (1 - s)
    e = 1e-3
    end = problem.exact(
        np.array([[e], [2 * e]]), half(0.0, s) * np.linspace(0, 1, 21), lam
    )
    slope = (4 * end[1][0] - end[1][1] - 3 * T[0]) / (2 * e)
    through_ends = 2 * np.trapezoid(slope, y[0])
    arc = np.hypot(1, -s * np.pi / 2 * np.sin(2 * np.pi * (x[:, 0] - 0.5)))
    through_side = np.trapezoid(h * T[:, -1] * arc, x[:, 0])
    assert through_ends + through_side == pytest.approx(power, rel=5e-3)


def test_the_reference_has_converged(monkeypatch):
    problem, lam = hpx.Conductor(), np.array([0.6, 4.0])
    x = np.linspace(0, 1, 9)[:, None]
    y = half(x, 0.6) * np.linspace(0, 1, 5)
    coarse = problem.exact(x, y, lam)
    monkeypatch.setattr(conductor, "_ALONG", 48)
    monkeypatch.setattr(conductor, "_ACROSS", 20)
    for one, other in zip(coarse, problem.exact(x, y, lam), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)
