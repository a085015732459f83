import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperpinn_eqx import Box

LINEAR = Box(t=(0, 1), x=(-3, 5))
LOG = Box(nu=(1e-3, 1e-1, "log"))
MIXED = Box(a=(2, 3), nu=(1e-3, 1e-1, "log"), fixed=(7, 7))
RING = Box(x=(-3, 5, "periodic"), t=(0, 1), phi=(2, 4, "periodic"))


@pytest.mark.parametrize("box", [LINEAR, LOG, MIXED, RING], ids=repr)
def test_scale_and_unscale_are_inverse(box, x64, getkey):
    scaled = jax.random.uniform(getkey(), (50, len(box)), minval=-1, maxval=1)
    moving = np.array(box.low) < np.array(box.high)
    back = box.scale(box.unscale(scaled))
    np.testing.assert_allclose(back, np.where(moving, scaled, 0), rtol=0, atol=1e-14)


def test_the_ends_are_minus_one_and_one(x64):
    for box in (LINEAR, LOG, RING):
        ends = box.scale(jnp.array([box.low, box.high]))
        np.testing.assert_allclose(ends, [[-1] * len(box), [1] * len(box)], atol=1e-14)
    # The centre of a logarithmic axis is the geometric mean.
    np.testing.assert_allclose(LOG.unscale(jnp.array([0.0])), [1e-2], rtol=1e-15)
    # A fixed parameter scales to zero, and back to itself.
    fixed = Box(fixed=(7, 7))
    assert fixed.scale(jnp.array([7.0])) == 0 and fixed.unscale(jnp.array([0.5])) == 7


@pytest.mark.parametrize(
    ("low", "high", "kind", "dtypes"),
    [
        (1.7e9, 1.7e9 + 60, (), ["float64"]),
        (1e5, 1e5 + 1, (), ["float64"]),
        (-1.0, 1.0, (), ["float16", "bfloat16", "float32", "float64"]),
        (1e3, 1e3 + 1, (), ["float32", "float64"]),
        # By their logarithms, which lie further apart, or nearer.
        (1e-30, 1e30, ("log",), ["bfloat16", "float32", "float64"]),
        (1e30, 1.001e30, ("log",), ["float64"]),
        (1e9, 1e9 + 1, ("periodic",), ["float64"]),
        (1e9, 1e9, (), ["bfloat16", "float32", "float64"]),
    ],
)
def test_a_range_that_the_precision_cannot_resolve_is_an_error(
    low, high, kind, dtypes, x64
):
    box = Box(x=(0, 1), time=(low, high, *kind))
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        values = jnp.zeros(2, dtype)
        for to in (box.scale, box.unscale, jax.jit(box.unscale)):
            if dtype in dtypes:
                to(values)
            else:
                with pytest.raises(ValueError, match=f"time = .*{dtype}"):
                    to(values)


def test_networks_see_cosines_and_at_the_end_sines_of_periodic_axes(x64, getkey):
    scaled = jax.random.uniform(getkey(), (4, 5, 3), minval=-3, maxval=3)
    x, t, phi = np.moveaxis(np.asarray(scaled), -1, 0)
    pi = np.pi
    columns = [np.cos(pi * x), t, np.cos(pi * phi), np.sin(pi * x), np.sin(pi * phi)]
    seen = RING.embed(scaled)
    np.testing.assert_allclose(seen, np.stack(columns, -1), rtol=0, atol=1e-15)
    assert RING.width == 5 and MIXED.width == len(MIXED) == 3
    assert MIXED.embed(scaled) is scaled


def test_values_a_period_apart_look_the_same(x64):
    values = jnp.array([-2.1, 0.5, 3.3])
    turned = values + jnp.array([8.0, 0.0, -6.0])  # one period of x, three of φ
    there, back = (RING.embed(RING.scale(v)) for v in (values, turned))
    np.testing.assert_allclose(there, back, rtol=0, atol=1e-14)


@pytest.mark.parametrize("box", [MIXED, RING], ids=repr)
def test_a_box_is_made_again(box, unchecked):
    for again in (eval(repr(box)), Box(**box.ranges())):
        assert again == box and hash(again) == hash(box)
    assert LOG.linear() == Box(nu=(1e-3, 1e-1))
    assert RING.linear() == Box(x=[-3, 5], t=np.array([0, 1]), phi=(np.float32(2), 4))


@pytest.mark.parametrize(
    "other",
    [Box(x=(-3, 5), t=(0, 1)), Box(t=(0, 1), y=(-3, 5)), Box(t=(0, 1), x=(-3, 4)), 1],
    ids=repr,
)
def test_boxes_differ_by_order_name_range_and_kind(other):
    assert other != LINEAR and hash(other) != hash(LINEAR)
    for box in (LOG, RING):
        assert box != box.linear() and hash(box) != hash(box.linear())


@pytest.mark.parametrize(
    "value",
    [
        1,
        (1,),
        (1, 2, "log", 4),
        (2, 1),
        (0, np.inf),
        (np.nan, 1),
        (0, 1, "log"),
        (1, 2, "linear"),
        (1, 2, ["log"]),
        ("1", "2"),
        ([1], 2),
        (None, 1),
        (1, 2, None),
        (2, 2, "periodic"),
        (3, 2, "periodic"),
        (1, 2, "log", "periodic"),
    ],
    ids=repr,
)
def test_a_bad_range_is_named(value, unchecked):
    with pytest.raises(ValueError, match="nu = "):
        Box(nu=value)


def test_no_range_is_an_error():
    with pytest.raises(ValueError, match="Box"):
        Box()


@pytest.mark.parametrize(
    "value",
    [0.01, np.float32(0.01), np.array(0.01), np.array([0.01]), jnp.array([0.01])],
    ids=lambda value: f"{type(value).__name__}{np.shape(value)}",
)
def test_one_parameter_may_be_a_number_or_an_array(value):
    result = LOG.parameter(value)
    assert result.shape == (1,) and result == np.float32(0.01)
    assert Box(n=(1, 5)).parameter(2).dtype == jnp.float32


@pytest.mark.parametrize("value", [(0.01, 0.02), [[0.01]], [], "text"], ids=repr)
def test_a_wrong_shape_is_named(value, unchecked):
    with pytest.raises(ValueError, match="viscosity.* nu"):
        LOG.parameter(value, argument="viscosity")
    for two in (LINEAR.parameter, LINEAR.point, LINEAR.scale, LINEAR.unscale):
        for bad in (0.5, jnp.ones(3)):
            with pytest.raises(ValueError, match=r"shape .*2"):
                two(bad)


@pytest.mark.parametrize("value", [0.0, -0.01, np.nan, np.inf])
def test_a_parameter_that_cannot_be_is_an_error(value):
    with pytest.raises(ValueError, match="lam: nu = "):
        LOG.parameter(value)


def test_outside_the_range_there_is_a_warning_that_names_it():
    for value in (9e-4, 0.11, 5.0):
        with pytest.warns(UserWarning, match=rf"nu = {value:g} .*0.001, 0.1"):
            LOG.parameter(value)
    with pytest.warns(UserWarning, match="a = -0.5"):
        assert Box(a=(0, 1)).parameter(-0.5) == -0.5
    # The ends are inside; warnings would be errors here.
    for value in (1e-3, 1e-1, np.float32(1e-3), np.float32(1e-1)):
        LOG.parameter(value)


def test_a_periodic_axis_has_no_outside():
    angle = Box(phi=(1, 3, "periodic"))
    for value in (2.0, -7.5, 0.0, 1e6):
        assert angle.parameter(value) == value
    with pytest.raises(ValueError, match="lam: phi = inf"):
        angle.parameter(np.inf)
    with pytest.warns(UserWarning, match="t = 1.5"):
        RING.parameter(jnp.array([100.0, 1.5, 100.0]))
    RING.point(jnp.array([-100.0, 0.5, 100.0]))
    for point, said in (
        ([-100.0, 1.5, 3.0], "t = 1.5"),
        ([np.inf, 0.5, 3.0], "x = inf"),
        ([0.0, 0.5, np.nan], "phi = nan"),
    ):
        with pytest.raises(ValueError, match=said):
            RING.point(jnp.array(point))


def test_a_point_lies_in_the_box_or_its_coordinate_is_named(unchecked):
    for point in ([0.0, -3.0], [1.0, 5.0], [0.5, 0.0]):
        LINEAR.point(jnp.array(point))
    for point, name in (([1.1, 0], "t"), ([0.5, -4], "x"), ([np.nan, 0], "t")):
        with pytest.raises(ValueError, match=f"point: {name} = "):
            LINEAR.point(point)


def test_what_is_traced_is_checked_for_its_shape_only():
    def both(value):
        LOG.point(value)
        return LOG.parameter(value)

    assert jax.jit(both)(jnp.array([-1.0])) == -1
    for check in (LOG.parameter, LOG.point):
        with pytest.raises(ValueError, match="shape"):
            jax.jit(lambda value, check=check: (check(value), value))(jnp.ones(2))


def test_values_may_be_of_any_kind_and_keep_their_precision(unchecked, x64):
    rows = [[0, -3], [1, 5]]
    for values in (rows, np.array(rows), jnp.array(rows)):
        np.testing.assert_array_equal(LINEAR.scale(values), [[-1, -1], [1, 1]])
        LINEAR.point(values[0])
    np.testing.assert_array_equal(LINEAR.unscale([-1, 1]), [0, 5])
    np.testing.assert_array_equal(LINEAR.parameter([1, 5]), [1, 5])
    for dtype in (jnp.float32, jnp.float64):
        values = jnp.array([2.5, 1e-2, 7], dtype)
        assert MIXED.scale(values).dtype == MIXED.unscale(values).dtype == dtype
