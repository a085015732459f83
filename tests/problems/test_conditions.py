"""Conditions on faces, and what is found out about the methods of a problem."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.physics.pinn import condition_residuals
from hyperpinn_eqx.physics.sampling import condition_points
from hyperpinn_eqx.physics.units import dimensionless
from hyperpinn_eqx.problems.conditions import Where
from hyperpinn_eqx.problems.recorded import use_of

BOX = hpx.Box(t=(0, 2), x=(-1, 1), y=(0, 3))


class Stream(hpx.AbstractPDE):
    """Two fields with all kinds of conditions."""

    fields = ("u", "v")
    domain = BOX
    parameters = hpx.Box(a=(0.5, 1.0))

    def residual(self, w, at, lam):
        u, v = w
        return u.t - lam * (u.xx + u.yy), u.x + v.y, v.t - u.yxx

    @hpx.condition(t=0)
    def start(self, w, at, lam):
        return w[0].value - lam * at[1], w[1].value

    @hpx.condition(x=(-1, 1))
    def flux(self, w, at, lam):
        return w[0].n

    @hpx.condition(y=0)
    def slip(self, w, at, lam):
        return (w[0].value * w[0].normal[1],)

    @hpx.condition(y=3)
    def outflow(self, w, at, lam):
        return ()

    @hpx.condition(at=(None, 0.5, 1))
    def pin(self, w, at, lam):
        return w[1].value - 1


def test_what_methods_use_is_found_out_by_calling_them():
    physics = use_of(Stream(), "physics")
    assert physics.words == ({"t", "x", "xx", "yy", "xxy"}, {"t", "y"})
    assert physics.derivatives == ("t", "x", "y", "xx", "yy", "xxy")
    assert physics.size == 3
    assert use_of(Stream(), "start").words == ({""}, {""})
    assert use_of(Stream(), "flux").words == ({"n"}, frozenset())
    assert use_of(Stream(), "slip").words == ({"", "n"}, frozenset())
    assert [use_of(Stream(), c).size for c in Stream().conditions] == [2, 1, 1, 0, 1]


def test_conditions_come_in_the_order_of_their_definition_and_are_inherited():
    class Other(Stream):
        def start(self, w, at, lam):
            return w[0].value

        @hpx.condition(y=(0, 3))
        def slip(self, w, at, lam):
            return w[1].value

    assert [*Other().conditions] == ["start", "flux", "slip", "outflow", "pin"]
    assert str(Other().conditions["slip"]) == "y = 0 and y = 3"
    assert Other().conditions["start"] == Where((("t", 0.0),))
    assert use_of(Other(), "start").size == 1


@pytest.mark.parametrize(
    "face", [{"z": 0}, {"x": 2}, {"at": (0, 0)}, {"at": (0, 5, 0)}], ids=str
)
def test_a_place_outside_of_the_domain_is_named(face):
    class Bad(Stream):
        @hpx.condition(**face)
        def odd_one(self, w, at, lam):
            return w[0].value

    with pytest.raises(ValueError, match="odd_one"):
        Bad()


@pytest.mark.parametrize("where", [{}, {"at": (0, 0, 0), "x": 1}], ids=str)
def test_a_condition_is_on_faces_or_at_a_point(where):
    with pytest.raises(ValueError, match="at = "):
        hpx.condition(**where)


@pytest.mark.parametrize(
    "where", [{"x": "1"}, {"x": (0, None)}, {"at": 1.0}, {"at": (0, "1")}], ids=str
)
def test_a_place_is_numbers(where, unchecked):
    (name,) = where
    with pytest.raises((ValueError, TypeError), match=name):
        hpx.condition(**where)


def test_a_periodic_coordinate_has_no_faces():
    class Ring(hpx.AbstractPDE):
        domain = hpx.Box(t=(0, 1), x=(-1, 1, "periodic"))
        parameters = hpx.Box(a=(0.5, 1.0))

        def residual(self, u, tx, lam):
            return u.t

        @hpx.condition(x=-1)
        def wall(self, u, tx, lam):
            return u.value

    with pytest.raises(ValueError, match="periodic"):
        Ring()


def test_points_lie_on_their_faces_evenly_with_outward_normals(getkey):
    where = Where((("x", -1.0), ("x", 1.0), ("y", 3.0)))
    places = condition_points(BOX, where, 300, key=getkey())
    for axis, value, sign in ((1, -1.0, -1.0), (1, 1.0, 1.0), (2, 3.0, 1.0)):
        at = np.asarray(places.normal)[:, axis] == sign
        assert at.sum() == 100
        points = np.asarray(places.point)[at]
        assert np.all(points[:, axis] == value)
        times = np.sort(points[:, 0])
        assert np.max(np.abs(times - np.linspace(0, 2, 100))) < 0.1
    assert np.all(jnp.linalg.norm(places.normal, axis=1) == 1)


@pytest.mark.parametrize("faces", range(1, 5))
@pytest.mark.parametrize("each", [7, 12, 50])
def test_points_are_even_on_each_of_any_number_of_faces(faces, each, getkey):
    box = hpx.Box(x=(0, 1), y=(0, 1))
    ends = [("y", 1.0), ("x", 0.0), ("x", 1.0), ("y", 0.0)][:faces]
    places = condition_points(box, Where(tuple(ends)), each * faces, key=getkey())
    for name, end in ends:
        axis = box.names.index(name)
        outward = np.asarray(places.normal)[:, axis] == (1.0 if end else -1.0)
        points = np.asarray(places.point)[outward]
        assert points.shape == (each, 2)
        found = np.sort(points[:, 1 - axis])
        assert np.max(np.diff(found, append=found[0] + 1)) < 2 / each


def test_a_point_is_one_and_a_line_many(getkey):
    (point,) = condition_points(BOX, Where(at=(1.0, 0.0, 2.0)), 9, key=getkey()).point
    assert point.tolist() == [1, 0, 2]
    line = condition_points(BOX, Where(at=(None, 0.0, 2.0)), 9, key=getkey()).point
    assert line[:, 1:].tolist() == 9 * [[0, 2]]
    assert len(set(line[:, 0].tolist())) == 9


def test_the_normal_derivative_points_outward(getkey):
    def u(p):
        return jnp.stack([p[1] ** 2 + p[2], p[0]])

    lam = jnp.array([0.7])
    for name, expected in (("flux", 2.0), ("pin", None)):
        where = Stream().conditions[name]
        places = condition_points(BOX, where, 8, key=getkey())
        r = condition_residuals(u, Stream(), name, lam, places)
        wanted = expected if expected else places.point[:, 0] - 1
        assert jnp.allclose(r, wanted, atol=1e-6)


def test_a_jet_knows_derivatives_in_any_order_of_letters():
    j = hpx.jets(lambda p: p[0] ** 2 * p[1], jnp.ones((1, 2)), ("xtt",))
    assert j.xtt == j.ttx == j.txt == 2


@pytest.mark.parametrize("word", ["z", "value_", "nn"])
def test_what_is_no_derivative_is_named(word):
    class Bad(Stream):
        def residual(self, w, at, lam):
            return getattr(w[0], word)

    with pytest.raises(AttributeError, match=word):
        hpx.PINNLoss(Bad())


@pytest.mark.parametrize("value", [jnp.ones(2), (jnp.ones((1,)), 0.0)], ids=str)
def test_a_method_returns_numbers(value):
    class Bad(Stream):
        def residual(self, w, at, lam):
            return value

    with pytest.raises(ValueError, match=r"Bad.residual"):
        hpx.PINNLoss(Bad())


def test_a_field_that_no_equation_contains_is_an_error():
    class Bad(Stream):
        def residual(self, w, at, lam):
            return w[0].t

    with pytest.raises(ValueError, match="'v'"):
        hpx.PINNLoss(Bad())


class Vibration(hpx.AbstractPDE):
    """A string, whose conditions are added one by one."""

    domain = hpx.Box(t=(0, 1), x=(0, 1))
    parameters = hpx.Box(c=(0.5, 1.0))

    def residual(self, u, tx, lam):
        return u.tt - lam**2 * u.xx


def string(**conditions):
    methods = {
        name: hpx.condition(**where)(method)
        for name, (where, method) in conditions.items()
    }
    return type("String", (Vibration,), methods)()


def bell(self, u, tx, lam):
    return u.value - jnp.sin(jnp.pi * tx[1])


def rest(self, u, tx, lam):
    return u.t


def fixed(self, u, tx, lam):
    return u.value


def nothing(self, u, tx, lam):
    return ()


WHOLE = {
    "start": ({"t": 0}, bell),
    "speed": ({"t": 0}, rest),
    "walls": ({"x": (0, 1)}, fixed),
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"speed": ({"x": 0}, fixed)}, ["t = 0"]),
        ({"walls": ({"x": 0}, fixed)}, ["x = 1"]),
        ({"walls": ({"x": 0}, fixed), "out": ({"x": 1}, nothing)}, []),
        ({"speed": ({"t": 0}, nothing)}, []),
        (
            {"walls": ({"x": (0, 1)}, lambda self, u, tx, lam: u.value - lam)},
            ["'start' and 'walls'"],
        ),
    ],
    ids=["whole", "no speed", "bare wall", "outflow", "silenced", "corner"],
)
def test_what_is_missing_or_contradicts_is_a_warning(change, said):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hpx.PINNLoss(string(**WHOLE | change))
    messages = [str(one.message) for one in caught]
    assert len(messages) == len(said)
    for message, part in zip(messages, said, strict=True):
        assert part in message


def test_a_condition_that_prescribes_nothing_has_no_size():
    units = dimensionless(string(**WHOLE | {"speed": ({"t": 0}, nothing)}))
    assert units.sizes.keys() == {"physics", "start", "walls"}
    assert use_of(units, "speed").size == 0


def test_a_pressure_without_a_value_is_a_warning():
    class Flow(hpx.Kovasznay):
        @hpx.condition(at=(0, 0))
        def origin(self, w, xy, lam):
            return ()

    with pytest.warns(UserWarning, match="derivatives of p"):
        hpx.PINNLoss(Flow())


def test_an_advection_needs_one_wall_only():
    class Advection(hpx.AbstractPDE):
        domain = hpx.Box(t=(0, 1), x=(0, 1))
        parameters = hpx.Box(c=(0.5, 1.0))

        def residual(self, u, tx, lam):
            return u.t + lam * u.x

        @hpx.condition(t=0)
        def start(self, u, tx, lam):
            return u.value - tx[1]

        @hpx.condition(x=0)
        def inflow(self, u, tx, lam):
            return u.value + lam * tx[0]

    hpx.PINNLoss(Advection())
