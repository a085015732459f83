"""The lid-driven cavity: the reference against published centre lines, and itself."""

import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.problems.cavity import Grid

pytestmark = pytest.mark.usefixtures("x64")

# The least u on the vertical centre line, and the largest and least v on the horizontal
# one, for a lid that moves as a whole (Botella and Peyret 1998, Comput. Fluids 27).
PUBLISHED = {
    100.0: (-0.2140424, 0.1795728, -0.2538030),
    1000.0: (-0.3885698, 0.3769447, -0.5270771),
}


def centre_lines(n, reynolds):
    grid = Grid(n)
    u, v, _ = grid.flow(reynolds, np.ones(n + 1))
    # Along the lines a spline: the extremes lie between nodes.
    fine = np.linspace(0, 1, 4001)
    from scipy.interpolate import CubicSpline

    along = CubicSpline(grid.nodes, u[n // 2])(fine)
    across = CubicSpline(grid.nodes, v[:, n // 2])(fine)
    return np.array([along.min(), across.max(), across.min()])


@pytest.mark.parametrize("reynolds", PUBLISHED)
def test_the_reference_meets_published_centre_lines(reynolds):
    coarse, fine = (centre_lines(n, reynolds) for n in (44, 64))
    ratio = (64 / 44) ** 2
    found = (ratio * fine - coarse) / (ratio - 1)
    np.testing.assert_allclose(found, PUBLISHED[reynolds], rtol=0.01)
    # Of second order: so the coarser grid is off by twice as much.
    wrong = np.abs(np.array([coarse, fine]) - PUBLISHED[reynolds]).sum(axis=1)
    assert wrong[0] / wrong[1] == pytest.approx(ratio, rel=0.25)


def test_the_reference_meets_the_conditions_and_conserves_mass():
    problem = hpx.Cavity()
    x = np.linspace(0, 1, 41)
    u, v, p = problem.exact(x[:, None], x, 200.0)
    lid = 1 - np.cosh(50 * (x - 0.5)) / np.cosh(25.0)
    np.testing.assert_allclose(u[:, -1], lid, atol=6e-3)
    for side in (u[0], u[-1], u[:, 0], v[0], v[-1], v[:, 0], v[:, -1]):
        np.testing.assert_allclose(side, 0, atol=2e-3)
    assert abs(p[20, 0]) < 1e-2
    # As much flows to the left as to the right, and down as up.
    flow = np.trapezoid(u, x, axis=1), np.trapezoid(v, x, axis=0)
    np.testing.assert_allclose(flow, 0, atol=6e-3)
