"""Domains that are images of boxes: points, normals, areas, and what is refused."""

import math
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.box import unpack
from hyperpinn_eqx.physics.pinn import condition_residuals
from hyperpinn_eqx.physics.sampling import condition_points, uniform
from hyperpinn_eqx.physics.units import dimensionless
from hyperpinn_eqx.physics.wellposed import look_at
from hyperpinn_eqx.problems.conditions import Where

TURN = 2 * math.pi


def polar(s, lam):
    return lam * s[0] * jnp.array([jnp.cos(s[1]), jnp.sin(s[1])])


def bump(s, lam):
    """A channel whose floor has a bump of a height λ."""
    floor = lam * jnp.exp(-((s[0] - 2) ** 2))
    return s[0], floor + s[1] * (1 - floor)


def piston(s, lam):
    """A wall at x = 1 + λ t."""
    return s[0], s[1] * (1 + lam * s[0])


RING = hpx.Ring.domain
CHANNEL = hpx.Mapped(hpx.Box(a=(0, 4), b=(0, 1)), ("x", "y"), bump)
MOVING = hpx.Mapped(hpx.Box(t=(0, 1), a=(0, 1)), ("t", "x"), piston)


def test_points_are_uniform_in_the_image(x64):
    points = uniform(RING, (4000,), jnp.array(3.0), key=jr.key(0))
    squares = jnp.sum(points**2, axis=1)
    assert jnp.all((squares > 1) & (squares < 9))
    # The area within a radius grows with its square.
    ranks = jnp.sort((squares - 1) / 8)
    assert jnp.max(jnp.abs(ranks - jnp.linspace(0, 1, 4000))) < 0.03


def test_points_of_a_face_are_uniform_along_it(x64):
    floor = Where((("b", 0.0),))
    places = condition_points(CHANNEL, floor, 2000, jnp.array(0.8), key=jr.key(0))
    x = jnp.sort(places.point[:, 0])
    grid = jnp.linspace(0, 4, 20001)
    slope = jax.vmap(jax.grad(lambda a: bump((a, 0.0), 0.8)[1]))(grid)
    length = jnp.cumsum(jnp.sqrt(1 + slope**2))
    at = jnp.interp(x, grid, length / length[-1])
    assert jnp.max(jnp.abs(at - jnp.linspace(0, 1, 2000))) < 0.04


@pytest.mark.parametrize("face", [("b", 0.0), ("b", 1.0), ("a", 0.0), ("a", 4.0)])
def test_normals_are_unit_outward_and_across(face, x64):
    places = condition_points(
        CHANNEL, Where((face,)), 50, jnp.array(0.5), key=jr.key(1)
    )
    n = places.normal
    assert jnp.allclose(jnp.linalg.norm(n, axis=1), 1)
    inside = places.point - 1e-6 * n
    x, y = inside.T
    floor = 0.5 * jnp.exp(-((x - 2) ** 2))
    assert jnp.all((x > 0) & (x < 4) & (y > floor) & (y < 1))
    assert not jnp.any(
        (x + 2e-6 * n[:, 0] < 4)
        & (x + 2e-6 * n[:, 0] > 0)
        & (y + 2e-6 * n[:, 1] < 1)
        & (y + 2e-6 * n[:, 1] > 0.5 * jnp.exp(-((x + 2e-6 * n[:, 0] - 2) ** 2)))
    )


def test_the_normal_of_a_moving_wall_is_one_in_space(x64):
    where = Where((("a", 1.0),))
    places = condition_points(MOVING, where, 20, jnp.array(0.7), key=jr.key(0))
    t, x = places.point.T
    assert jnp.allclose(x, 1 + 0.7 * t)
    assert jnp.allclose(places.normal, jnp.array([[0.0, 1.0]]))
    start = condition_points(
        MOVING, Where((("t", 0.0),)), 20, jnp.array(0.7), key=jr.key(0)
    )
    assert jnp.all(start.point[:, 0] == 0)
    assert jnp.allclose(start.normal, jnp.array([[-1.0, 0.0]]))


def test_more_dimensions(x64):
    def shell(s, lam):
        r, a, b = 1 + s[0] * lam, s[1], s[2]
        return (
            r * jnp.sin(a) * jnp.cos(b),
            r * jnp.sin(a) * jnp.sin(b),
            r * jnp.cos(a),
        )

    box = hpx.Box(r=(0, 1), a=(0.1, math.pi - 0.1), b=(0, TURN, "periodic"))
    domain = hpx.Mapped(box, ("x", "y", "z"), shell)
    where = Where((("r", 0.0), ("r", 1.0)))
    places = condition_points(domain, where, 40, jnp.array(1.0), key=jr.key(0))
    radius = jnp.linalg.norm(places.point, axis=1)
    assert jnp.allclose(radius, jnp.tile(jnp.array([1.0, 2.0]), 20))
    sign = jnp.tile(jnp.array([-1.0, 1.0]), 20)[:, None]
    assert jnp.allclose(places.normal, sign * places.point / radius[:, None])


def test_the_box_of_a_domain_holds_every_image():
    box = RING.bounds(hpx.Box(ratio=(1.5, 3.0)))
    assert box.names == ("x", "y")
    assert np.all(np.array(box.low) <= -3) and np.all(np.array(box.low) > -3.05)
    assert MOVING.bounds(hpx.Box(speed=(0.0, 1.0))).ranges()["t"] == (0.0, 1.0)


@pytest.mark.parametrize("scaled", [False, True], ids=["as written", "dimensionless"])
@pytest.mark.parametrize(
    ("problem", "lams"),
    [
        (hpx.Ring(), [(1.5,), (2.2,), (4.0,)]),
        (hpx.Ellipse(), [(0.3, 1.0), (1.0, 0.4), (0.7, 0.7)]),
    ],
    ids=["ring", "ellipse"],
)
def test_the_exact_solution_has_no_residual(problem, lams, scaled, x64):
    units = dimensionless(problem)
    family = units if scaled else problem
    box = units.extent
    low, high = jnp.array([box.low, box.high])

    def solution(lam, point):
        x = low + (high - low) * point if scaled else point
        u = problem.exact(*x, unpack(problem.parameters, lam))
        return (u - units.means[0]) / units.halves[0] if scaled else u

    for lam in map(jnp.array, lams):
        net, value = partial(solution, lam), unpack(problem.parameters, lam)
        points = uniform(family.domain, (50,), value, key=jr.key(0))
        r = {"physics": hpx.residuals(net, family, lam, points)}
        off = []
        for name, where in family.conditions.items():
            at = condition_points(family.domain, where, 50, value, key=jr.key(1))
            r[name] = condition_residuals(net, family, name, lam, at)
            # Of another λ these are no places of the edge.
            other = partial(solution, 0.9 * lam)
            off += [jnp.max(jnp.abs(condition_residuals(other, family, name, lam, at)))]
        assert all(jnp.max(jnp.abs(part)) < 1e-9 for part in r.values())
        assert max(off) > 1e-3


def test_stokes_flow_over_a_bump(x64):
    problem, h = hpx.Bump(), 0.3
    lam, e = jnp.array(h), 1e-3
    points = np.array(uniform(problem.domain, (30,), lam, key=jr.key(0)))
    # Differences need room to the walls.
    steps = e * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    inside = (points[:, 1] < 0.95) & (points[:, 1] > 0.35)
    x, y = (points[inside][:, None] + steps[None]).transpose(2, 0, 1)
    u, v, p = problem.exact(x, y, h)

    def laplacian(f):
        return (f[:, 1:].sum(axis=1) - 4 * f[:, 0]) / e**2

    def slope(f, i):
        return (f[:, i] - f[:, i + 1]) / (2 * e)

    size = np.max(np.abs(laplacian(u)))
    for found in (
        laplacian(u) - slope(p, 1),
        laplacian(v) - slope(p, 3),
        slope(u, 1) + slope(v, 3),
    ):
        assert np.max(np.abs(found)) < 5e-3 * size
    for name, where in problem.conditions.items():
        at = condition_points(problem.domain, where, 40, lam, key=jr.key(1)).point
        known = jnp.array(problem.exact(*np.asarray(at).T, h)).T
        jets = [tuple(hpx.Jet(w, {}) for w in row) for row in known]
        rows = zip(jets, at, strict=False)
        r = [problem.condition_residual(name, *row, lam) for row in rows]
        assert jnp.max(jnp.abs(jnp.array(r))) < 1e-5
    # Without a bump it is the profile that comes in.
    y = np.linspace(0, 1, 5)
    u, v, p = problem.exact(1.0, y, 0.0)
    np.testing.assert_allclose(u, 4 * y * (1 - y), atol=1e-9)
    np.testing.assert_allclose(v, 0, atol=1e-9)
    np.testing.assert_allclose(p, 24, rtol=1e-7)


def test_errors_count_by_area(x64):
    class Inside(hpx.Ring):
        def exact(self, x, y, lam):
            return np.where(x**2 + y**2 < 1.5**2, 1.0, 0.0)

    spec = hpx.MainNetSpec((2, 3, 1), Inside().bounds)
    zero = jax.tree.map(jnp.zeros_like, spec.init(key=jr.key(0)))
    model = hpx.SingleNet(zero, Inside.parameters)
    found = hpx.family_error(model, Inside(), lams=[2.0, 3.0], n_x=400)
    share = (1.5**2 - 1) / (np.array([2.0, 3.0]) ** 2 - 1)
    np.testing.assert_allclose(found.mse, share, rtol=0.02)


def test_a_family_on_a_ring_is_learned():
    result = hpx.train_family(
        hpx.Ring(), adam_steps=300, newton_steps=60, key=jr.key(0), progress=False
    )
    error = hpx.family_error(result.model, hpx.Ring(), n_lam=5)
    assert np.max(error.relative_l2) < 5e-3
    estimate = hpx.estimate_error(
        result.model, hpx.Ring(), lams=error.lam, key=jr.key(1)
    )
    ratio = estimate.relative_l2 / error.relative_l2
    assert np.all((ratio > 0.3) & (ratio < 3))


def test_a_map_that_folds_is_refused():
    def fold(s, lam):
        return s[0], s[1] + lam * s[1] * (1 - s[1])

    class Folded(hpx.Ring):
        domain = hpx.Mapped(hpx.Box(a=(0, 1), r=(0, 1)), ("x", "y"), fold)

    with pytest.raises(ValueError, match="folds"):
        hpx.train_family(Folded(), key=jr.key(0), progress=False)
    with pytest.raises(ValueError, match="folds"):
        hpx.PINNLoss(Folded())


def test_a_face_of_which_nothing_is_left_is_refused():
    class Disc(hpx.AbstractPDE):
        domain = hpx.Mapped(
            hpx.Box(r=(0, 1), a=(0, TURN, "periodic")), ("x", "y"), polar
        )
        parameters = hpx.Box(radius=(1.0, 2.0))

        def residual(self, u, xy, lam):
            return u.xx + u.yy + 1

        @hpx.condition(r=1)
        def rim(self, u, xy, lam):
            return u.value

    # Of the middle, no condition is missing.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look_at(Disc())

    class Middle(Disc):
        @hpx.condition(r=0)
        def middle(self, u, xy, lam):
            return u.value

    with pytest.raises(ValueError, match="middle"):
        look_at(Middle())


def refused(image):
    class Refused(hpx.AbstractPDE):
        domain = image
        parameters = hpx.Box(size=(1.0, 3.0))

        def residual(self, u, xy, lam):
            return u.xx

    with pytest.raises(ValueError, match="map"):
        look_at(Refused())


def test_a_periodic_axis_has_to_close():
    box = hpx.Box(r=(0, 1), a=(0, 3, "periodic"))
    refused(hpx.Mapped(box, ("x", "y"), RING.map))


def test_the_time_is_passed_on():
    box = hpx.Box(t=(0, 1), a=(0, 1))
    refused(hpx.Mapped(box, ("t", "x"), lambda s, lam: (lam * s[0], s[1])))
    with pytest.raises(ValueError, match="t in it"):
        hpx.Mapped(box, ("x", "y"), lambda s, lam: s)


def test_an_image_may_have_the_names_of_its_box_and_any_units():
    box = hpx.Box(x=(0, 1), y=(0, 1))
    domain = hpx.Mapped(box, ("x", "y"), lambda s, lam: (1e-9 * s[0], s[1] * lam))
    lam = hpx.Box(size=(1.0, 3.0))
    assert 3 <= domain.bounds(lam).high[1] < 3.1
    for name in "xy":
        assert not domain.collapsed(name, 0.0, lam)


@pytest.mark.parametrize(
    "shape", [lambda s, lam: s[0], lambda s, lam: jnp.ones(3), lambda s, lam: s / 0.0]
)
def test_a_map_that_returns_something_else_is_refused(shape):
    class Wrong(hpx.Ring):
        domain = hpx.Mapped(hpx.Box(a=(0, 1), r=(0, 1)), ("x", "y"), shape)

    with pytest.raises(ValueError, match="map"):
        look_at(Wrong())


def test_a_missing_face_and_a_contradiction_are_told():
    class Bare(hpx.AbstractPDE):
        domain = RING
        parameters = hpx.Ring.parameters

        def residual(self, u, xy, lam):
            return u.xx + u.yy

        @hpx.condition(r=0)
        def inner(self, u, xy, lam):
            return u.value - xy[0]

    with pytest.warns(UserWarning, match="r = 1"):
        look_at(Bare())

    class Corner(hpx.AbstractPDE):
        domain = CHANNEL
        parameters = hpx.Box(height=(0.1, 0.5))

        def residual(self, u, xy, lam):
            return u.xx + u.yy

        @hpx.condition(b=(0, 1))
        def walls(self, u, xy, lam):
            return u.value

        @hpx.condition(a=(0, 4))
        def ends(self, u, xy, lam):
            return u.value - 1

    with pytest.warns(UserWarning, match="contradict"):
        look_at(Corner())


def test_lam_is_needed_where_the_domain_depends_on_it():
    with pytest.raises(ValueError, match="lam"):
        uniform(RING, (3,), key=jr.key(0))
    with pytest.raises(ValueError, match="coordinates"):
        hpx.Mapped(hpx.Box(a=(0, 1)), ("x", "y"), polar)


def test_another_map_is_another_problem():
    from hyperpinn_eqx.recipes.fingerprint import fingerprint

    class Other(hpx.Ring):
        domain = hpx.Mapped(
            RING.reference, ("x", "y"), lambda s, lam: 2 * RING.map(s, lam)
        )

    one, other = fingerprint(hpx.Ring()), fingerprint(Other())
    assert one["programs"]["map"] != other["programs"]["map"]
    assert fingerprint(hpx.Ring()) == one
