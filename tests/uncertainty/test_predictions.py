"""Predictions: equal if they compute the same, from whatever arrays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperpinn_eqx.uncertainty.predictions import read

LAM = jnp.array([2.0])
PAIR = jnp.arange(3.0), jnp.ones(1)


def made(arrays=PAIR, power=2, slope=1.0, host=1.0):
    """A function of λ with everything that one can look like another in."""

    @jax.custom_jvp
    def own(x):
        return x

    own.defjvp(lambda x, dx: (x[0], slope * dx[0]))

    @jax.custom_jvp
    def outside(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        ask = lambda x: np.asarray(host * x, np.float32)  # noqa: E731
        return jax.pure_callback(ask, shape, x, vmap_method="expand_dims")

    outside.defjvp(lambda x, dx: (outside(x[0]), host * dx[0]))
    first, second = arrays

    def predict(lam):
        _ = second * lam
        inner = eqx.filter_jit(lambda lam: lam**power)(lam)
        value = first * own(inner)
        return value if host == 1.0 else outside(value)

    return predict


def test_those_with_other_arrays_are_equal():
    one, arrays = read(made(), LAM)
    assert one.shape == (3,)
    np.testing.assert_array_equal(one(arrays, LAM), 4 * np.arange(3.0))
    other, arrays = read(made((PAIR[0] + 1, PAIR[1] + 1)), LAM)
    assert one == other and hash(one) == hash(other)
    np.testing.assert_array_equal(one(arrays, LAM), 4 * np.arange(1, 4.0))


@pytest.mark.parametrize(
    "change",
    [
        {"power": 3},
        # Only its derivative is another.
        {"slope": 2.0},
        {"arrays": (jnp.arange(4.0), PAIR[1])},
        # An array that is not used is still one of the arrays.
        {"arrays": (PAIR[0], jnp.ones(3))},
    ],
)
def test_those_with_another_program_are_not(change):
    assert read(made(**change), LAM)[0] != read(made(), LAM)[0]


def test_a_function_that_python_calls_later_is_another():
    (two, arrays), (three, _) = (read(made(host=h), LAM) for h in (2.0, 3.0))
    assert two != three
    np.testing.assert_array_equal(two(arrays, LAM), 8 * np.arange(3.0))


def test_errors_that_equinox_will_raise_are_the_same():
    def predict(lam):
        return eqx.error_if(lam, lam < 0, "negative")

    assert read(predict, LAM)[0] == read(lambda lam: predict(lam), LAM)[0]


@pytest.mark.parametrize("value", [1j, True])
def test_what_are_no_real_numbers_is_an_error(value):
    with pytest.raises(ValueError, match="predict"):
        read(lambda lam: jnp.array([value]), LAM)
