import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperpinn_eqx import Loss
from hyperpinn_eqx.training.validation import (
    check_loss,
    check_type,
    first_fault,
    largest,
    trainable,
)


def test_weights_stay_what_they_are(hyper):
    assert eqx.tree_equal(trainable("model", hyper), hyper)


def test_numpy_arrays_are_weights_and_all_else_stays():
    model = {"w": np.ones(2), "n": jnp.arange(3), "f": jnp.tanh, "none": jnp.ones(0)}
    found = trainable("model", model)
    assert isinstance(found["w"], jax.Array) and found["w"].dtype == jnp.float32
    assert found["n"] is model["n"] and found["f"] is jnp.tanh


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_an_error(bad, hyper):
    spoilt = eqx.tree_at(
        lambda m: m.weights[1], hyper, hyper.weights[1].at[2, 0].set(bad)
    )
    match = rf"net.weights\[1\] holds {bad} at \(2, 0\), expected finite"
    with pytest.raises(ValueError, match=match):
        trainable("net", spoilt)


@pytest.mark.parametrize("model", [None, 3.0, jnp.arange(2), jnp.tanh, {}])
def test_what_has_no_weights_is_an_error(model):
    with pytest.raises(ValueError, match="net has weights of no type, expected one"):
        trainable("net", model)


def test_weights_of_two_types_are_an_error(x64):
    model = jnp.ones(2), jnp.ones(2, jnp.float32)
    with pytest.raises(ValueError, match="weights of float32 and float64, .* hpx.cast"):
        trainable("model", model)


def test_complex_weights_are_an_error():
    with pytest.raises(ValueError, match=r"model\[0\] = .*, expected .* real numbers"):
        trainable("model", (jnp.ones(2, complex),))


@pytest.mark.parametrize("weights", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("data", [jnp.float32, jnp.float64])
def test_a_loss_has_the_precision_of_the_weights(weights, data, x64):
    model = jnp.ones(2, weights)

    def loss(model, key):
        return Loss({"fine": jnp.sum(model), "data": jnp.sum(model.astype(data))})

    if weights == data:
        check_loss(loss, model, jr.key(0))
        return
    names = jnp.dtype(data).name, jnp.dtype(weights).name
    match = "the term 'data' of loss is {}, expected {} like the weights.*hpx.cast"
    with pytest.raises(ValueError, match=match.format(*names)):
        check_loss(loss, model, jr.key(0))


@pytest.mark.parametrize("name", ["step", "seconds", "total"])
def test_a_term_cannot_have_a_name_of_the_history(name):
    with pytest.raises(ValueError, match=f"loss has a term '{name}', expected another"):
        check_loss(lambda model, key: Loss({name: model}), jnp.ones(()), jr.key(0))


@pytest.mark.parametrize("value", [0.0, jnp.ones(()), None, {"data": jnp.ones(())}])
def test_what_is_no_loss_is_an_error(value):
    with pytest.raises(TypeError, match=r"loss\(model, key\) = .*, expected a Loss"):
        check_loss(lambda model, key: value, jnp.ones(()), jr.key(0))


def test_a_loss_is_looked_at_without_running_it():
    def loss(model, key):
        jax.debug.callback(lambda x: pytest.fail("it ran"), model)
        return Loss({"data": model})

    check_loss(loss, jnp.ones(()), jr.key(0))
    jax.effects_barrier()


def test_types_are_compared_with_those_of_the_weights(hyper):
    check_type("path", jnp.dtype(jnp.float32), hyper)
    with pytest.raises(ValueError, match="path is float16, expected float32 like the"):
        check_type("path", jnp.dtype(jnp.float16), hyper)


def test_the_largest_weight(hyper):
    zero = jax.tree.map(jnp.zeros_like, hyper)
    for value, expected in ((-3.0, 3.0), (np.nan, np.nan), (-np.inf, np.inf)):
        one = eqx.tree_at(lambda m: m.theta0, zero, zero.theta0.at[2].set(value))
        np.testing.assert_equal(float(largest(one)), expected)
    assert largest([jnp.ones(0), jnp.zeros(2)]) == 0


def columns(**bad):
    """Terms at four steps, each with some of them spoilt."""
    terms = {name: np.ones(4) for name in ("data", "physics", "total", "weights")}
    for name, steps in bad.items():
        for step, value in steps.items():
            terms[name][step] = value
    weights = terms.pop("weights")
    return terms, weights


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({}, None),
        ({"physics": {0: np.nan}}, "the loss term 'physics' became nan at step 11"),
        ({"data": {3: -np.inf}}, "the loss term 'data' became -inf at step 14"),
        # What comes first in time counts.
        (
            {"data": {2: np.nan}, "physics": {1: np.inf}, "total": {1: np.inf}},
            "the loss term 'physics' became inf at step 12",
        ),
        # In one step: a term, then their sum, then the weights.
        (
            {"data": {2: np.nan}, "total": {2: np.nan}, "weights": {2: np.nan}},
            "the loss term 'data' became nan at step 13",
        ),
        (
            {"total": {1: np.inf}, "weights": {1: np.nan}},
            "the loss term 'total' became inf at step 12",
        ),
        (
            {"weights": {1: np.inf}, "data": {2: np.nan}},
            "the weights became inf after step 12",
        ),
        ({"weights": {3: np.nan}}, "the weights became nan after step 14"),
    ],
)
def test_the_first_fault_is_told(bad, expected):
    assert first_fault(*columns(**bad), done=10) == expected


def test_the_sum_comes_after_terms_whose_names_come_after_it():
    terms = {"total": np.array([np.nan]), "zeta": np.array([np.nan])}
    assert first_fault(terms, np.ones(1), 0).startswith("the loss term 'zeta'")
