import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
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


@pytest.mark.parametrize("box", [LINEAR, LOG, RING], ids=repr)
def test_the_ends_are_minus_one_and_one(box):
    ends = box.scale(jnp.array([box.low, box.high]))
    np.testing.assert_allclose(ends, [[-1] * len(box), [1] * len(box)], atol=1e-6)


def test_the_centre_of_a_log_axis_is_the_geometric_mean(x64):
    np.testing.assert_allclose(LOG.unscale(jnp.array([0.0])), [1e-2], rtol=1e-15)


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


def test_times_since_1970_are_neither_drawn_nor_learned_in_float32(getkey):
    box = Box(time=(1.7e9, 1.7e9 + 60), x=(0, 1))
    with pytest.raises(ValueError, match="time = "):
        hpx.uniform(box, (3,), key=getkey())
    net = hpx.MainNetSpec((2, 3, 1), box).init(key=getkey())
    with pytest.raises(ValueError, match="time = "):
        net(jnp.array([1.7e9, 0.5]))
    with pytest.raises(ValueError, match="time = "):
        hpx.jets(net, jnp.array([[1.7e9, 0.5]]))


def test_a_fixed_parameter_scales_to_zero():
    box = Box(fixed=(7, 7))
    assert box.scale(jnp.array([7.0])) == 0
    assert box.unscale(jnp.array([0.5])) == 7


def test_linear_drops_the_logarithm_and_the_period():
    assert LOG.linear() == Box(nu=(1e-3, 1e-1))
    assert RING.linear() == Box(x=(-3, 5), t=(0, 1), phi=(2, 4))


@pytest.mark.parametrize("box", [MIXED, RING], ids=repr)
def test_a_box_is_made_again(box):
    for again in (eval(repr(box)), Box(**box.ranges())):
        assert again == box and hash(again) == hash(box)


def test_networks_see_cosines_and_at_the_end_sines_of_periodic_axes(x64, getkey):
    scaled = jax.random.uniform(getkey(), (4, 5, 3), minval=-3, maxval=3)
    x, t, phi = np.moveaxis(np.asarray(scaled), -1, 0)
    pi = np.pi
    columns = [np.cos(pi * x), t, np.cos(pi * phi), np.sin(pi * x), np.sin(pi * phi)]
    seen = RING.embed(scaled)
    np.testing.assert_allclose(seen, np.stack(columns, -1), rtol=0, atol=1e-15)
    assert RING.width == 5 and MIXED.width == len(MIXED) == 3


def test_without_a_periodic_axis_networks_see_the_scaled_values(getkey):
    scaled = jax.random.uniform(getkey(), (4, 2))
    np.testing.assert_array_equal(LINEAR.embed(scaled), scaled)


def test_values_a_period_apart_look_the_same(x64):
    values = jnp.array([-2.1, 0.5, 3.3])
    turned = values + jnp.array([8.0, 0.0, -6.0])  # one period of x, three of φ
    there, back = (RING.embed(RING.scale(v)) for v in (values, turned))
    np.testing.assert_allclose(there, back, rtol=0, atol=1e-14)


def test_equal_boxes_have_equal_hashes():
    same = Box(nu=(0.001, 0.1, "log"))
    assert same == LOG and hash(same) == hash(LOG)


@pytest.mark.parametrize(
    "other",
    [Box(x=(-3, 5), t=(0, 1)), Box(t=(0, 1), y=(-3, 5)), Box(t=(0, 1), x=(-3, 4)), 1],
    ids=repr,
)
def test_boxes_differ_by_order_name_and_range(other):
    assert other != LINEAR


@pytest.mark.parametrize("box", [LOG, RING], ids=repr)
def test_the_kind_of_an_axis_makes_a_difference(box):
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
    with pytest.raises(ValueError, match="Box: nu = .*expected"):
        Box(nu=value)


def test_no_range_is_an_error():
    with pytest.raises(ValueError, match="no ranges"):
        Box()


@pytest.mark.parametrize(
    "value",
    [0.01, np.float32(0.01), np.array(0.01), np.array([0.01]), jnp.array([0.01])],
    ids=lambda value: f"{type(value).__name__}{np.shape(value)}",
)
def test_one_parameter_may_be_a_number_or_an_array(value):
    result = LOG.parameter(value)
    assert result.shape == (1,)
    assert result == np.float32(0.01)


def test_an_integer_parameter_becomes_a_float():
    assert Box(n=(1, 5)).parameter(2).dtype == jnp.float32


@pytest.mark.parametrize("value", [(0.01, 0.02), [[0.01]], []], ids=repr)
def test_a_wrong_shape_is_named(value):
    value = jnp.array(value)
    with pytest.raises(ValueError) as error:
        LOG.parameter(value, argument="viscosity")
    for part in ("viscosity", str(value.shape), "1 value(s): nu", "(1,)"):
        assert part in str(error.value)


def test_a_number_is_too_little_for_two_parameters():
    with pytest.raises(ValueError, match=r"shape \(\), expected 2 .*a, b"):
        Box(a=(0, 1), b=(0, 1)).parameter(0.5)


@pytest.mark.parametrize("value", [0.0, -0.01, np.nan, np.inf])
def test_a_parameter_that_cannot_be_is_an_error(value):
    with pytest.raises(ValueError, match="lam: nu = .*expected a positive number"):
        LOG.parameter(value)


def test_a_range_with_zero_admits_negative_values_with_a_warning():
    with pytest.warns(UserWarning, match="outside the trained range"):
        assert Box(a=(0, 1)).parameter(-0.5) == -0.5


@pytest.mark.parametrize("value", [9e-4, 0.11, 5.0])
def test_outside_the_range_there_is_a_warning_that_names_it(value):
    with pytest.warns(UserWarning, match=rf"nu = {value:g} .*\[0.001, 0.1\]"):
        LOG.parameter(value)


def test_a_periodic_parameter_may_have_any_value():
    # Warnings would be errors here.
    angle = Box(phi=(1, 3, "periodic"))
    for value in (2.0, -7.5, 0.0, 1e6):
        assert angle.parameter(value) == value
    with pytest.raises(ValueError, match="lam: phi = inf, expected a finite number"):
        angle.parameter(np.inf)
    with pytest.warns(UserWarning, match="t = 1.5 lies outside the trained range"):
        RING.parameter(jnp.array([100.0, 1.5, 100.0]))


@pytest.mark.parametrize("value", [1e-3, 1e-1, np.float32(1e-3), np.float32(1e-1)])
def test_the_ends_of_the_range_do_not_warn(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LOG.parameter(value)


def test_a_traced_parameter_is_checked_for_shape_only():
    assert jax.jit(LOG.parameter)(-1.0) == -1
    with pytest.raises(ValueError, match="shape"):
        jax.jit(LOG.parameter)(jnp.ones(2))


def test_point_accepts_the_whole_box():
    for point in ([0.0, -3.0], [1.0, 5.0], [0.5, 0.0]):
        LINEAR.point(jnp.array(point))


@pytest.mark.parametrize(
    ("point", "name"), [([1.1, 0], "t"), ([0.5, -4], "x"), ([np.nan, 0], "t")]
)
def test_point_names_the_coordinate_outside(point, name):
    with pytest.raises(ValueError, match=f"point: {name} = .*expected a value in"):
        LINEAR.point(jnp.array(point))


def test_a_periodic_coordinate_has_no_outside():
    RING.point(jnp.array([-100.0, 0.5, 100.0]))
    for point, said in (
        ([-100.0, 1.5, 3.0], "t = 1.5, expected a value in"),
        ([np.inf, 0.5, 3.0], "x = inf"),
        ([0.0, 0.5, np.nan], "phi = nan"),
    ):
        with pytest.raises(ValueError, match=said):
            RING.point(jnp.array(point))


@pytest.mark.parametrize(
    "given", [[0, 2], np.array([0, 2]), (np.float32(0), 2)], ids=repr
)
def test_a_range_may_be_any_pair_of_numbers(given, unchecked):
    box = Box(t=given)
    assert box == Box(t=(0.0, 2.0)) and hash(box) == hash(Box(t=(0, 2)))


def test_values_may_be_lists_or_whole_numbers(unchecked):
    rows = [[0, -3], [1, 5]]
    for values in (rows, np.array(rows), jnp.array(rows)):
        np.testing.assert_array_equal(LINEAR.scale(values), [[-1, -1], [1, 1]])
        LINEAR.point(values[0])
    np.testing.assert_array_equal(LINEAR.unscale([-1, 1]), [0, 5])
    np.testing.assert_array_equal(LINEAR.parameter([1, 5]), [1, 5])


def test_values_have_one_column_for_each_axis():
    for change in (LINEAR.scale, LINEAR.unscale):
        with pytest.raises(
            ValueError, match=r"values has shape \(4, 3\), expected \(..., 2\)"
        ):
            change(jnp.ones((4, 3)))
    with pytest.raises(ValueError, match=r"point has shape \(3,\), expected \(2,\)"):
        LINEAR.point(jnp.ones(3))


def test_a_traced_point_is_checked_for_shape_only():
    def check(point):
        LINEAR.point(point)
        return point

    jax.jit(check)(jnp.array([7.0, 7.0]))
    with pytest.raises(ValueError, match="point has shape"):
        jax.jit(check)(jnp.ones(3))


def test_scale_keeps_the_precision(x64):
    for dtype in (jnp.float32, jnp.float64):
        values = jnp.array([2.5, 1e-2, 7], dtype)
        assert MIXED.scale(values).dtype == MIXED.unscale(values).dtype == dtype


def test_junk_for_boxes(throw_junk_at):
    throw_junk_at(hpx.Box, t=(0, 1), x=(1e-3, 1, "log"), y=(0, 1, "periodic"))
    throw_junk_at(MIXED.scale, values=np.array([[2.5, 1e-2, 7]]))
    throw_junk_at(MIXED.unscale, values=np.array([[0.5, -1, 0]]))
    throw_junk_at(LOG.parameter, lam=0.01)
    throw_junk_at(MIXED.parameter, lam=np.array([2.5, 1e-2, 7]))
    throw_junk_at(MIXED.point, point=np.array([2.5, 1e-2, 7]))
    throw_junk_at(RING.parameter, lam=np.array([0.0, 0.5, 3]))
    throw_junk_at(RING.point, point=np.array([0.0, 0.5, 3]))
