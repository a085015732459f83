"""What holds for every family: its equation, and the exact solution of it."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.physics.pinn import condition_residuals
from hyperpinn_eqx.physics.sampling import condition_points
from hyperpinn_eqx.problems.conditions import Where

pytestmark = pytest.mark.usefixtures("x64")


class Coupled(hpx.AbstractPDE):
    """Two fields with conditions on their normal derivatives."""

    fields = ("u", "v")
    domain = hpx.Box(t=(0, 1), x=(-1, 2))
    parameters = hpx.Box(a=(0.5, 2.0))

    def residual(self, w, tx, lam):
        u, v = w
        return u.t - v.xx + u.value * v.x, v.t + lam * u.x

    @hpx.condition(t=0)
    def start(self, w, tx, lam):
        return w[0].value, w[1].value - tx[1]

    @hpx.condition(x=(-1, 2))
    def exchange(self, w, tx, lam):
        return w[0].n + lam * w[1].value, w[1].n * w[0].normal[1]


def corners(box, *more):
    return [*itertools.product(*zip(box.low, box.high, strict=True)), *more]


def one(tx, lam):
    return jnp.exp(-lam * tx[0]) * jnp.cos(tx[1])


def several(tx, lam):
    return jnp.sin(lam[0] * tx[1]) + lam[1] * lam[2] * tx[0] ** 2


def plane(p, lam):
    return jnp.sin(p[1] + lam[0] * p[0]) * jnp.cos(lam[1] * p[2])


def pair(tx, lam):
    return jnp.stack([jnp.sin(lam * tx[1] + tx[0]), jnp.exp(-lam * tx[0]) * tx[1] ** 2])


MADE = {
    "one": (hpx.Manufactured(hpx.AllenCahn(), one), [(0.3,)]),
    "several": (hpx.Manufactured(hpx.Transport(), several), [(0.5, 0.02, 1.5)]),
    "plane": (hpx.Manufactured(hpx.Plume(), plane), [(0.02, 2.0)]),
    "pair": (hpx.Manufactured(Coupled(), pair), [(0.7,)]),
}
# With values of λ. What is solved in NumPy comes further below, but for the two
# families of Burgers' equation, which have tests of their own.
SOLVED = MADE | {
    "front": (hpx.AllenCahn(), [(0.01,), (0.1,), (1.0,)]),
    "cloud": (hpx.Plume(), corners(hpx.Plume.parameters, (0.02, 0.7), (0.01, -2.0))),
    "pulse": (hpx.Transport(), corners(hpx.Transport.parameters, (0.4, 0.02, 0.7))),
    "standing": (hpx.Wave(), [(0.3, 0.8), (1.0, 1.0)]),
    "square": (hpx.Poisson(), [(2.0, 0.5), (0.0, 3.0), (4.3, 5.0)]),
    "grid": (hpx.Kovasznay(), [(20.0,), (45.0,), (100.0,)]),
    "soliton": (hpx.KortewegDeVries(), [(1.0,), (2.3,), (4.0,)]),
    "light": (hpx.Schroedinger(), corners(hpx.Schroedinger.parameters, (1.0, 0.3))),
}


@pytest.fixture(params=SOLVED)
def solved(request, getkey):
    problem, lams = SOLVED[request.param]
    return problem, [jnp.array(lam) for lam in lams], places_of(problem, getkey)


def places_of(problem, getkey):
    """40 points for the equation, and for each condition."""
    places = {"physics": hpx.uniform(problem.domain, (40,), key=getkey())}
    for name, where in problem.conditions.items():
        places[name] = condition_points(problem.domain, where, 40, key=getkey())
    return places


def all_residuals(net, problem, lam, places):
    return {
        name: hpx.residuals(net, problem, lam, at)
        if name == "physics"
        else condition_residuals(net, problem, name, lam, at)
        for name, at in places.items()
    }


def exact(problem, lam):
    """The exact solution as a function of one point."""

    def u(p):
        found = problem.exact(*p, unpacked(lam))
        return jnp.stack(found) if isinstance(found, tuple) else found

    return u


def unpacked(lam):
    return lam[0] if lam.size == 1 else lam


def test_the_exact_solution_solves_all_and_that_of_another_lambda_does_not(solved):
    problem, lams, places = solved

    @eqx.filter_jit
    def residuals(solution, lam):
        return all_residuals(exact(problem, solution), problem, lam, places)

    box = problem.parameters
    for lam in lams:
        for name, r in residuals(lam, lam).items():
            np.testing.assert_allclose(r, 0 * r, atol=1e-11, err_msg=name)
        for i, width in enumerate(np.subtract(box.high, box.low)):
            wrong = residuals(lam.at[i].add(width / 10), lam).values()
            assert max(jnp.max(jnp.abs(r)) for r in wrong) > 1e-3


def test_coordinates_broadcast(solved):
    problem, lams, places = solved
    points, lam = places["physics"], unpacked(lams[0])
    d = points.shape[1]
    at = jax.jit(lambda *p: jnp.stack(jax.tree.leaves(problem.exact(*p, lam)), -1))
    grid = at(*np.ix_(*np.asarray(points[:2].T)))
    assert grid.shape == (2,) * d + (len(problem.fields),)
    for i, point in enumerate(points[:2]):
        np.testing.assert_allclose(grid[(i,) * d], at(*point), rtol=1e-12)


@pytest.mark.parametrize("name", MADE)
def test_a_manufactured_residual_is_the_original_one_less_the_source(name, getkey):
    made, ((*lam,),) = MADE[name]
    lam = jnp.array(lam)
    v = lambda p: made.solution(p, unpacked(lam))  # noqa: E731
    u = lambda p: v(p) ** 2 + jnp.sin(3 * p[1]) * p[0]  # noqa: E731
    places = places_of(made, getkey)
    found, original, source = (
        eqx.filter_jit(all_residuals)(net, problem, lam, places)
        for net, problem in ((u, made), (u, made.problem), (v, made.problem))
    )
    assert {*found} == {"physics", *made.problem.conditions}
    for name, r in found.items():
        expected = original[name] - source[name]
        np.testing.assert_allclose(r, expected, rtol=1e-10, atol=1e-12)
        assert jnp.max(jnp.abs(source[name])) > 1e-2 and jnp.max(jnp.abs(r)) > 1e-2


# --- Solved in NumPy --------------------------------------------------------------


def through(values, patch, n=18):
    """The polynomial through exact values at n times n Chebyshev nodes of a patch."""
    nodes = np.cos(np.pi * (np.arange(n) + 0.5) / n)
    middle, half = (np.array([f(*patch[c]) for c in "tx"]) for f in (_middle, _half))
    t, x = (m + h * nodes for m, h in zip(middle, half, strict=True))
    back = np.linalg.inv(np.polynomial.chebyshev.chebvander(nodes, n - 1))
    c = jnp.asarray(back @ values(t[:, None], x) @ back.T)

    def u(p):
        s = (p - middle) / half
        t, x = (_chebyshev(one, n) for one in s)
        return t @ c @ x

    return u


def _middle(low, high):
    return (low + high) / 2


def _half(low, high):
    return (high - low) / 2


def _chebyshev(s, n):
    """T_0(s), …, T_{n-1}(s)."""
    found = [jnp.ones_like(s), s]
    while len(found) < n:
        found.append(2 * s * found[-1] - found[-2])
    return jnp.stack(found)


ROD, KLEIN_GORDON = (0.3, 1.2), (-1.5, 0.7, 0.4)
# Of the rod after its start. Of Klein and Gordon's equation between the characteristics
# from the corners, across which second derivatives jump: after the start, at either
# wall, and where waves have met twice and six times.
PATCHES = [
    (hpx.Rod(), ROD, {"t": (0.2, 0.5), "x": (0, 1)}),
    (hpx.Rod(), (1.0, 0.5), {"t": (0.7, 1), "x": (0, 1)}),
    *(
        (hpx.KleinGordon(), KLEIN_GORDON, {"t": times, "x": places})
        for times, places in (
            ((0, 0.3), (-0.4, 0.4)),
            ((0.6, 0.9), (0.5, 1)),
            ((0.6, 0.9), (-1, -0.5)),
            ((1.5, 1.75), (-0.3, 0.3)),
            ((4.85, 5), (-0.3, 0.3)),
        )
    ),
]


@pytest.mark.parametrize(("problem", "lam", "patch"), PATCHES)
def test_what_is_solved_in_numpy_solves_the_equation_too(problem, lam, patch, getkey):
    u = through(lambda t, x: problem.exact(t, x, np.array(lam)), patch)
    box = hpx.Box(**patch)
    places = {"physics": hpx.uniform(box, (40,), key=getkey())}
    for name, where in problem.conditions.items():
        faces = tuple(face for face in where.faces if face[1] in patch[face[0]])
        if faces:
            places[name] = condition_points(box, Where(faces), 40, key=getkey())
    right = eqx.filter_jit(all_residuals)(u, problem, jnp.array(lam), places)
    for name, r in right.items():
        np.testing.assert_allclose(r, 0 * r, atol=1e-7, err_msg=name)
    other = jnp.array(lam) * jnp.array([1.1, *[1.0] * (len(lam) - 1)])
    assert jnp.max(jnp.abs(hpx.residuals(u, problem, other, places["physics"]))) > 1e-3


def test_every_condition_has_its_patch():
    for family in (hpx.Rod, hpx.KleinGordon):
        touched = {
            face
            for problem, _, patch in PATCHES
            if type(problem) is family
            for where in problem.conditions.values()
            for face in where.faces
            if face[1] in patch[face[0]]
        }
        every = {f for w in family().conditions.values() for f in w.faces}
        assert every - touched <= ({("t", 0.0)} if family is hpx.Rod else set())


def test_the_series_of_the_rod_starts_at_its_start():
    x = np.linspace(0, 1, 41)
    for k, h in corners(hpx.Rod.parameters):
        found = hpx.Rod().exact(0.0, x, np.array([k, h]))
        expected = 1 - h * x**2 / (2 * k + h)
        np.testing.assert_allclose(found, expected, rtol=0, atol=4e-8)


def test_heat_leaves_the_rod_at_its_end_only():
    lam = np.array([0.4, 1.3])
    nodes, weights = np.polynomial.legendre.leggauss(20)
    t, x = 0.3 + 0.2 * nodes, (1 + nodes) / 2
    heat = [hpx.Rod().exact(at, x, lam) @ weights / 2 for at in (0.1, 0.5)]
    flow = lam[1] * hpx.Rod().exact(t, 1.0, lam) @ weights * 0.2
    np.testing.assert_allclose(heat[0] - heat[1], flow, rtol=1e-10)


def test_a_wave_of_klein_and_gordon_is_known():
    t, x = np.linspace(0, 5, 7)[:, None], np.linspace(-1, 1, 9)
    found = hpx.KleinGordon().exact(t, x, np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_allclose(found, x * np.cos(t), rtol=0, atol=1e-13)


def leapfrog(lam, n):
    """u(5, x) by central differences of order two, with a Courant number of 0.8."""
    α, β, γ = lam
    x, h = np.linspace(-1, 1, n + 1), 2 / n
    steps = math.ceil(5 / (0.8 * h / math.sqrt(-α)))
    k = 5 / steps

    def rate(t, u):
        source = x * np.cos(t)
        u_xx = np.zeros_like(u)
        u_xx[1:-1] = (u[2:] - 2 * u[1:-1] + u[:-2]) / h**2
        return source**2 - source - α * u_xx - β * u - γ * u**2

    old, u = x, x + k**2 / 2 * rate(0.0, x)
    for step in range(1, steps + 1):
        u[[0, -1]] = x[[0, -1]] * np.cos(step * k)
        if step < steps:
            old, u = u, 2 * u - old + k**2 * rate(step * k, u)
    return x, u


def test_finite_differences_come_to_the_same_wave_with_their_order(order_of):
    lam, sizes, errors = np.array(KLEIN_GORDON), np.array([100, 200, 400, 800]), []
    for n in sizes:
        x, u = leapfrog(lam, n)
        gap = u - hpx.KleinGordon().exact(5.0, x, lam)
        errors.append(np.sqrt(np.mean(gap**2)))
    # Not quite two, since second derivatives jump.
    assert 1.6 < order_of(1 / sizes, errors) < 2.1 and errors[-1] < 1e-4


# --- What they are known for --------------------------------------------------------


def test_a_soliton_has_its_speed_its_height_and_its_mass():
    x = np.linspace(-40, 40, 4001)
    for c in (1.0, 2.5):
        t = 0.8
        u = np.asarray(hpx.KortewegDeVries().exact(t, x, c))
        np.testing.assert_allclose(u.max(), c / 2, rtol=1e-4)
        np.testing.assert_allclose(np.sum(u * 0.02), 2 * np.sqrt(c), rtol=1e-10)
        middle = np.sum(x * u) / np.sum(u)
        np.testing.assert_allclose(middle, c * t - 1.5, rtol=1e-10)


def test_a_soliton_of_light_has_its_speed_and_keeps_its_mass():
    x, (a, c) = np.linspace(-40, 40, 4001), (1.2, -0.7)
    for t in (0.0, 1.0):
        u, v = map(np.asarray, hpx.Schroedinger().exact(t, x, np.array([a, c])))
        density = u**2 + v**2
        np.testing.assert_allclose(np.sum(density * 0.02), 2 * a, rtol=1e-10)
        middle = np.sum(x * density) / np.sum(density)
        np.testing.assert_allclose(middle, c * t, rtol=0, atol=1e-10)


def test_far_behind_the_grid_the_flow_is_uniform():
    y = np.linspace(-0.5, 1.5, 5)
    u, v, p = hpx.Kovasznay().exact(40.0, y, 40.0)
    np.testing.assert_allclose([u, v, p], np.outer([1, 0, 0.5], np.ones(5)), atol=1e-9)


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


VALUES = {"": 2.0, "t": 3.0, "x": 5.0, "xx": 7.0, "y": 11.0, "yy": 13.0}
VALUES |= {"tt": 17.0, "xxx": 19.0}
SOURCE = 0.5 * math.cos(0.5)
# For the fields 1, 10 and 100 times these values, where all coordinates are 1/2.
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
    (hpx.Rod(), (0.25, 1.0), 3 - 0.25 * 7),
    (hpx.Wave(), (0.5, 0.3), 17 - 0.25 * (7 + 13)),
    (hpx.Poisson(), (1.0, 2.0), 7 + 13 + 5 * math.cos(0.5) * math.sin(1.0)),
    (
        hpx.KleinGordon(),
        (-1.5, 0.5, 0.25),
        17 - 1.5 * 7 + 0.5 * 2 + 0.25 * 4 + SOURCE - SOURCE**2,
    ),
    (hpx.KortewegDeVries(), 2.0, 3 + 6 * 2 * 5 + 19),
    (
        hpx.Schroedinger(),
        (1.0, 0.0),
        (3 + 70 / 2 + 404 * 20, 30 - 7 / 2 - 404 * 2),
    ),
    (
        hpx.Kovasznay(),
        50.0,
        (
            2 * 5 + 20 * 11 + 500 - 20 / 50,
            2 * 50 + 20 * 110 + 1100 - 200 / 50,
            5 + 110,
        ),
    ),
]


@pytest.mark.parametrize(("problem", "lam", "expected"), RESIDUALS)
def test_the_residual_is_the_equation(problem, lam, expected):
    jets = []
    for i in range(len(problem.fields)):
        words = {word: jnp.array(10.0**i * value) for word, value in VALUES.items()}
        jets.append(hpx.Jet(words.pop(""), words))
    u = jets[0] if len(jets) == 1 else tuple(jets)
    tx = jnp.full(len(problem.domain), 0.5)
    r = problem.residual(u, tx, jnp.array(lam))
    np.testing.assert_allclose(r, expected, rtol=1e-14)


@pytest.mark.parametrize("problem", [problem for problem, *_ in RESIDUALS])
def test_methods_compute_in_the_precision_that_they_get(problem, getkey):
    # Types are not promoted in the tests.
    spec = hpx.MainNetSpec((len(problem.domain), len(problem.fields)), problem.domain)
    net = hpx.cast(spec.init(key=getkey()), jnp.float32)
    lam = problem.parameters.unscale(jnp.zeros(len(problem.parameters)))
    every = all_residuals(net, problem, lam, places_of(problem, getkey))
    assert {r.dtype for r in every.values()} == {np.dtype("float32")}


def test_families_hold_no_arrays_and_have_the_ranges_of_what_they_wrap(heat):
    for problem in (heat, hpx.Lorenz(), *(problem for problem, *_ in RESIDUALS)):
        assert jax.tree.leaves(problem) == []
    for made, _ in MADE.values():
        assert made.domain == made.problem.domain
        assert made.parameters == made.problem.parameters
        assert made.fields == made.problem.fields
        assert made.conditions == made.problem.conditions
