"""What holds for every family: its equation, and the exact solution of it."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

pytestmark = pytest.mark.usefixtures("x64")
FAMILIES = [hpx.AllenCahn, hpx.Burgers, hpx.BurgersWave, hpx.Plume, hpx.Transport]


def corners(box, *more):
    return [*itertools.product(*zip(box.low, box.high, strict=True)), *more]


def one(tx, lam):
    return jnp.exp(-lam * tx[0]) * jnp.cos(tx[1])


def several(tx, lam):
    return jnp.sin(lam[0] * tx[1]) + lam[1] * lam[2] * tx[0] ** 2


def plane(p, lam):
    return jnp.sin(p[1] + lam[0] * p[0]) * jnp.cos(lam[1] * p[2])


# With values of λ. The two families of Burgers' equation are solved in NumPy, and have
# tests of their own.
SOLVED = {
    "front": (hpx.AllenCahn(), [(0.01,), (0.1,), (1.0,)]),
    "cloud": (hpx.Plume(), corners(hpx.Plume.parameters, (0.02, 0.7), (0.01, -2.0))),
    "pulse": (hpx.Transport(), corners(hpx.Transport.parameters, (0.4, 0.02, 0.7))),
    "one": (hpx.Manufactured(hpx.AllenCahn(), one), [(0.3,)]),
    "several": (hpx.Manufactured(hpx.Transport(), several), [(0.5, 0.02, 1.5)]),
    "plane": (hpx.Manufactured(hpx.Plume(), plane), [(0.02, 2.0)]),
}


@pytest.fixture(params=SOLVED)
def solved(request, getkey):
    problem, lams = SOLVED[request.param]
    points = eqx.filter_jit(hpx.uniform)(problem.domain, (40,), key=getkey())
    return problem, [jnp.array(lam) for lam in lams], points


def unpacked(lam):
    return lam[0] if lam.size == 1 else lam


def test_the_exact_solution_solves_the_equation_and_that_of_another_lambda_not(solved):
    problem, lams, points = solved

    @eqx.filter_jit
    def residuals(solution, lam):
        u = lambda p: problem.exact(*p, unpacked(solution))  # noqa: E731
        return hpx.residuals(u, problem, lam, points)

    for lam in lams:
        np.testing.assert_allclose(residuals(lam, lam), np.zeros(40), atol=1e-12)
        for i in range(lam.size):
            wrong = residuals(lam.at[i].add(0.1), lam)
            assert jnp.max(jnp.abs(wrong)) > 1e-3


def test_the_conditions_are_those_of_the_exact_solution(solved):
    problem, lams, points = solved

    @jax.jit
    def both(lam):
        conditions = [
            jax.vmap(condition, (0, None))(points, lam)
            for condition in (problem.initial, problem.boundary)
        ]
        return problem.exact(*points.T, lam), conditions

    for lam in map(unpacked, lams):
        expected, conditions = both(lam)
        for found in conditions:
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-300)


def test_coordinates_broadcast(solved):
    problem, lams, points = solved
    lam, d = unpacked(lams[0]), points.shape[1]
    exact = jax.jit(problem.exact)
    grid = exact(*np.ix_(*np.asarray(points[:2].T)), lam)
    assert grid.shape == (2,) * d
    for i, point in enumerate(points[:2]):
        expected = exact(*point, lam)
        np.testing.assert_allclose(grid[(i,) * d], expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["one", "several", "plane"])
def test_a_manufactured_residual_is_the_original_one_less_the_source(name, getkey):
    made, ((*lam,),) = SOLVED[name]
    lam = jnp.array(lam)
    v = lambda p: made.solution(p, unpacked(lam))  # noqa: E731
    u = lambda p: v(p) ** 2 + jnp.sin(3 * p[1]) * p[0]  # noqa: E731
    points = eqx.filter_jit(hpx.uniform)(made.domain, 20, key=getkey())
    found, original, source = (
        eqx.filter_jit(hpx.residuals)(net, problem, lam, points)
        for net, problem in ((u, made), (u, made.problem), (v, made.problem))
    )
    np.testing.assert_allclose(found, original - source, rtol=1e-10, atol=1e-12)
    assert jnp.max(jnp.abs(source)) > 1e-2 and jnp.max(jnp.abs(found)) > 1e-2


def test_the_front_starts_at_one_and_moves_with_its_speed():
    t = np.array([0.0, 1.0, 4.0])
    for D in (0.01, 0.2, 1.0):
        there = 1 + 3 * np.sqrt(D / 2) * t
        middle = hpx.AllenCahn().exact(t, there, D)
        np.testing.assert_allclose(middle, [0.5] * 3, rtol=1e-12)


def test_the_pulse_starts_as_a_gaussian_for_every_parameter():
    x = np.linspace(0, 2, 9)
    for lam in map(np.array, corners(hpx.Transport.parameters)):
        expected = np.exp(-((x - 0.5) ** 2) / 0.045)
        found = hpx.Transport().exact(0.0, x, lam)
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_the_cloud_drifts_with_the_wind_and_keeps_its_mass():
    x = np.linspace(-3, 3, 121)
    t, lam = np.array([0.0, 0.5, 1.0]), np.array([0.02, 2.0])
    D, θ = lam
    grid = np.meshgrid(t, x, x, indexing="ij", sparse=True)
    u = np.asarray(hpx.Plume().exact(*grid, lam))
    mass = u.sum((1, 2)) * 0.05**2
    np.testing.assert_allclose(mass, [2 * math.pi / 16] * 3, rtol=1e-10)
    across = np.sum(u * x[:, None], (1, 2)) * 0.05**2 / mass
    np.testing.assert_allclose(across, np.cos(θ) * t / 2, rtol=0, atol=1e-9)
    variance = np.sum(u * x**2, (1, 2)) * 0.05**2 / mass - (np.sin(θ) * t / 2) ** 2
    np.testing.assert_allclose(variance, 1 / 16 + 2 * D * t, rtol=1e-8)
    np.testing.assert_allclose(
        hpx.Plume().exact(0, 0.25, 0, lam), math.exp(-1 / 2), rtol=1e-14
    )


def test_the_wind_may_turn_all_the_way_round():
    there, back = (
        hpx.Plume().exact(0.7, 0.2, -0.4, np.array([0.01, θ]))
        for θ in (0.3, 0.3 + 4 * math.pi)
    )
    np.testing.assert_allclose(there, back, rtol=1e-13)


RESIDUALS = [
    (hpx.AllenCahn(), 0.5, 3 - 0.5 * 7 - 2 + 2**3),
    (hpx.Burgers(), 0.5, 3 + 2 * 5 - 0.5 * 7),
    (hpx.BurgersWave(), (1.0, 0.0), 3 + 2 * 5 - 0.05 * 7),
    (
        hpx.Plume(),
        (0.25, math.pi / 6),
        3 + (math.sqrt(3) / 2 * 5 + 11 / 2) / 2 - 0.25 * (7 + 13),
    ),
    (hpx.Transport(), (0.25, 0.5, 1.5), 3 + 0.25 * 5 - 0.5 * 7 + 1.5 * 2),
]


@pytest.mark.parametrize(("problem", "lam", "expected"), RESIDUALS)
def test_the_residual_is_the_equation(problem, lam, expected):
    values = {"t": 3.0, "x": 5.0, "y": 11.0, "xx": 7.0, "yy": 13.0}
    words = {word: jnp.array(values[word]) for word in problem.derivatives}
    tx = jnp.zeros(len(problem.domain))
    r = problem.residual(hpx.Jet(jnp.array(2.0), words), tx, jnp.array(lam))
    np.testing.assert_allclose(r, expected, rtol=1e-14)


def test_families_hold_no_arrays_and_have_the_ranges_of_what_they_wrap(heat):
    for problem in [heat, hpx.Lorenz(), *(family() for family in FAMILIES)]:
        assert jax.tree.leaves(problem) == []
    for made in (SOLVED[name][0] for name in ("one", "several", "plane")):
        assert made.domain == made.problem.domain
        assert made.parameters == made.problem.parameters
        assert made.derivatives == made.problem.derivatives
