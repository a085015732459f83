import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperpinn_eqx import Loss
from hyperpinn_eqx.training.validation import (
    check_loss,
    first_fault,
    largest,
    trainable,
)


def test_numpy_arrays_are_weights_and_all_else_stays(hyper):
    assert eqx.tree_equal(trainable("model", hyper), hyper)
    model = {"w": np.ones(2), "n": jnp.arange(3), "f": jnp.tanh, "none": jnp.ones(0)}
    found = trainable("model", model)
    assert isinstance(found["w"], jax.Array) and found["w"].dtype == jnp.float32
    assert found["n"] is model["n"] and found["f"] is jnp.tanh


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (
            lambda: {"w": (jnp.ones(1), jnp.ones((3, 2)).at[2, 0].set(jnp.nan))},
            "(2, 0)",
        ),
        (lambda: {"w": jnp.array([1, -jnp.inf])}, "-inf"),
        (lambda: (jnp.ones(2), jnp.ones(2, jnp.float32)), "float32 and float64"),
        (lambda: (jnp.ones(2, complex),), "net[0]"),
        *((lambda one=one: one, "net") for one in (None, 3.0, jnp.arange(2), {})),
    ],
)
def test_weights_that_cannot_be_trained_are_an_error(model, told, x64):
    with pytest.raises(ValueError) as caught:
        trainable("net", model())
    assert str(caught.value).startswith("net") and told in str(caught.value)


@pytest.mark.parametrize("weights", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("data", [jnp.float32, jnp.float64])
def test_a_loss_has_the_precision_of_the_weights(weights, data, x64):
    def loss(model, key):
        # It is looked at without running it.
        jax.debug.callback(lambda x: pytest.fail("it ran"), model)
        return Loss({"fine": jnp.sum(model), "other": jnp.sum(model.astype(data))})

    model = jnp.ones(2, weights)
    if weights == data:
        check_loss(loss, model, jr.key(0))
        jax.effects_barrier()
    else:
        with pytest.raises(ValueError, match="other"):
            check_loss(loss, model, jr.key(0))


@pytest.mark.parametrize(
    "value", [0.0, None, {"data": 0.0}, *map(Loss, ({"step": 0}, {"total": 0}))]
)
def test_what_is_no_loss_is_an_error(value):
    with pytest.raises((TypeError, ValueError), match="loss"):
        check_loss(lambda model, key: value, jnp.ones(()), jr.key(0))


def test_the_largest_weight(hyper):
    zero = jax.tree.map(jnp.zeros_like, hyper)
    for value, expected in ((-3.0, 3.0), (np.nan, np.nan), (-np.inf, np.inf)):
        one = eqx.tree_at(lambda m: m.theta0, zero, zero.theta0.at[2].set(value))
        np.testing.assert_equal(float(largest(one)), expected)
    assert largest([jnp.ones(0), jnp.zeros(2)]) == 0


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("bad", "what", "step"),
    [
        ({"physics": {0: NAN}}, "physics", 11),
        ({"data": {3: -INF}}, "data", 14),
        # What comes first in time counts.
        ({"data": {2: NAN}, "physics": {1: INF}, "total": {1: INF}}, "physics", 12),
        ({"weights": {1: INF}, "data": {2: NAN}}, "weights", 12),
        # In one step: a term, then their sum, then the weights.
        ({"data": {2: NAN}, "total": {2: NAN}, "weights": {2: NAN}}, "data", 13),
        ({"zeta": {2: NAN}, "total": {2: NAN}}, "zeta", 13),
        ({"total": {1: INF}, "weights": {1: NAN}}, "total", 12),
    ],
)
def test_the_first_fault_is_told(bad, what, step):
    columns = {n: np.ones(4) for n in ("data", "physics", "total", "weights", *bad)}
    weights = columns.pop("weights")
    assert first_fault(columns, weights, done=10) is None
    for name, steps in bad.items():
        for at, value in steps.items():
            (weights if name == "weights" else columns[name])[at] = value
    told = first_fault(columns, weights, done=10)
    assert what in told and told.endswith(f"step {step}")
