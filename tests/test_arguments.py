import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import _arguments as checks


@pytest.mark.parametrize("value", [1, np.int32(1), jnp.asarray(1), 7])
def test_counts(value):
    found = checks.count("n", value)
    assert type(found) is int and found == value


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None, jnp.ones(2, int)])
def test_what_is_no_count(value):
    with pytest.raises(ValueError, match="n = .*, expected an integer of at least 1"):
        checks.count("n", value)


def test_a_count_may_have_another_least():
    assert checks.count("n", 0, 0) == 0
    with pytest.raises(ValueError, match="n = 1, expected an integer of at least 2"):
        checks.count("n", 1, 2)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5), jnp.asarray(0.5)])
def test_numbers(value):
    found = checks.number("x", value, 0.0)
    assert type(found) is float and found == value


@pytest.mark.parametrize(
    "value", [-1, np.nan, np.inf, "0.5", None, True, 1j, [1.0], np.ones(1), 10**400]
)
def test_what_is_no_number(value):
    match = r"x = .*, expected a finite number of at least 0"
    with pytest.raises(ValueError, match=match):
        checks.number("x", value, 0.0)


def test_numbers_may_be_unbounded_or_exclude_the_bound():
    assert checks.number("x", -7) == -7.0
    with pytest.raises(ValueError, match="x = nan, expected a finite number$"):
        checks.number("x", np.nan)
    assert checks.positive("x", 1e-300) == 1e-300
    with pytest.raises(ValueError, match="x = 0, expected a finite number above 0"):
        checks.positive("x", 0)


@pytest.mark.parametrize(
    "value", [[[1, 2]], np.ones((1, 2)), np.ones((1, 2), int), jnp.ones((1, 2), int)]
)
def test_arrays_come_in_jaxs_precision(value):
    assert checks.array("points", value, "n", 2).dtype == jnp.float32
    with jax.enable_x64(True):
        assert checks.array("points", value, "n", 2).dtype == jnp.float64


def test_jax_arrays_keep_their_type(x64):
    for dtype in (jnp.float32, jnp.float64, jnp.bfloat16):
        assert checks.array("x", jnp.ones(2, dtype), 2).dtype == dtype


@pytest.mark.parametrize(
    "value", ["text", ["a"], None, object(), 1j, [[1], [1, 2]], True, jr.key(0), {}]
)
def test_what_is_no_array(value):
    match = r"(?s)x = .*, expected an array of real numbers, shape \(n,\)"
    with pytest.raises(ValueError, match=match):
        checks.array("x", value, "n")


def test_the_shape_of_an_array():
    fits = jnp.ones((2, 3))
    for axes in (("n", 3), (2, 3), ("n", "d"), ("...", 3), ("...", "n", 3), ("...",)):
        assert checks.array("x", fits, *axes) is fits
    for axes in (("n", 2), ("n",), (), ("n", "d", 3), ("...", 2), ("...", 1, 2, 3)):
        with pytest.raises(ValueError, match=r"x has shape \(2, 3\), expected \("):
            checks.array("x", fits, *axes)


def test_empty_arrays():
    for shape in ((0, 2), (3, 0)):
        with pytest.raises(ValueError, match=r"expected \(n, d\), nothing empty"):
            checks.array("x", jnp.ones(shape), "n", "d")
    assert checks.array("x", jnp.ones((0, 2)), "n", 2, empty=True).shape == (0, 2)


def test_finite_arrays():
    x = jnp.array([[1.0, 2.0], [jnp.inf, jnp.nan]])
    assert checks.array("x", x, "n", 2) is x
    with pytest.raises(ValueError, match=r"x holds inf at \(1, 0\), expected finite"):
        checks.array("x", x, "n", 2, finite=True)
    # A traced value cannot be looked at.
    jax.jit(lambda x: checks.array("x", x, "n", 2, finite=True))(x)


def test_random_keys():
    for key in (jr.key(0), jr.PRNGKey(0)):
        assert checks.random_key("key", key) is key
    for bad in (0, None, jr.split(jr.key(0), 2), jnp.ones(2), np.zeros(2, np.uint32)):
        with pytest.raises(
            ValueError, match="(?s)key = .*, expected one JAX random key"
        ):
            checks.random_key("key", bad)


def test_instances(heat):
    checks.instance("problem", heat, hpx.AbstractPDE)
    checks.instance("problem", heat, (hpx.AbstractODE, hpx.AbstractPDE))
    with pytest.raises(TypeError, match="problem = 3, expected an ODE or PDE"):
        checks.instance("problem", 3, (hpx.AbstractODE, hpx.AbstractPDE))
    with pytest.raises(TypeError, match=r"call the class: Heat\(\)"):
        checks.instance("problem", type(heat), hpx.AbstractPDE)


def test_functions():
    checks.function("loss", len)
    with pytest.raises(TypeError, match="loss = 1, expected a function"):
        checks.function("loss", 1)


def test_choices():
    checks.choice("init", "split", ("split", "plain"))
    checks.choice("init", None, ("split", None))
    for bad in ("other", 1, jnp.ones(2), ["split"]):
        with pytest.raises(ValueError, match="init = .*, expected one of split, plain"):
            checks.choice("init", bad, ("split", "plain"))


@pytest.mark.parametrize(
    "value", [[[1, 2]], np.ones((1, 2), np.float32), jnp.ones((1, 2), jnp.bfloat16)]
)
def test_numpy_arrays_are_float64_in_either_mode(value):
    found = checks.numpy_array("points", value, "n", 2)
    assert type(found) is np.ndarray and found.dtype == np.float64
    assert not jax.config.jax_enable_x64


def test_numpy_arrays_are_checked_like_others():
    for bad, match in (
        ("text", r"x = 'text', expected an array of real numbers, shape \(n,\)"),
        (np.ones((2, 2)), r"x has shape \(2, 2\), expected \(n,\)"),
        ([0.0, np.nan], r"x holds nan at \(1,\), expected finite"),
    ):
        with pytest.raises(ValueError, match=match):
            checks.numpy_array("x", bad, "n", finite=True)
    with pytest.raises(ValueError, match=r"(?s)x = .* neither jax.jit nor jax.vmap"):
        jax.jit(lambda x: checks.numpy_array("x", x, "n"))(jnp.ones(2))
