"""Losses as named terms, and batches for them, whatever the equations are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Batch, Loss, Term


def test_total_is_the_sum_of_the_terms_in_their_precision(x64):
    loss = Loss({name: jnp.array(2.0**i, jnp.float32) for i, name in enumerate("abc")})
    assert loss.total == 7 and loss.total.dtype == jnp.float32


def test_terms_may_be_any_real_numbers_but_there_has_to_be_one(unchecked):
    loss = Loss({"a": 1, "b": np.float64(2.5), "c": jnp.asarray(3)})
    assert loss.total == 6.5
    assert {term.dtype for term in loss.terms.values()} == {jnp.dtype("float32")}
    with pytest.raises(ValueError, match="terms"):
        Loss({})


def test_the_items_of_a_batch_are_trees_of_arrays(unchecked):
    items = {"a": np.ones((2, 3)), "b": {"x": np.ones((2, 4, 2)), "y": None}}
    batch = Batch([[1], [2]], items)
    assert batch.lam.dtype == jnp.float32
    shapes = jax.tree.map(jnp.shape, batch.items)
    assert shapes == {"a": (2, 3), "b": {"x": (2, 4, 2), "y": None}}


@pytest.mark.parametrize(
    "bad",
    [
        np.ones((3, 4)),
        np.ones(2),
        {"x": np.ones((2, 3)), "y": np.ones((2, 4))},
        {},
    ],
    ids=["rows", "axes", "counts", "nothing"],
)
def test_items_of_other_shapes_are_an_error(bad):
    with pytest.raises(ValueError, match=r"items\['bad'\]"):
        Batch(np.ones((2, 1)), {"good": np.ones((2, 3)), "bad": bad})


@pytest.mark.parametrize("shape", [(6,), (6, 2)])
def test_the_squares_of_the_rows_of_all_items_add_up_to_a_term(shape, x64):
    r, term = jax.random.normal(jax.random.key(0), shape), Term(len, weight=3.0)
    np.testing.assert_allclose(term.mean(r), 3 * np.mean(np.square(r)), rtol=1e-14)
    rows = jnp.concatenate([term.rows(r[i : i + 2], 6) for i in range(0, 6, 2)])
    assert rows.shape == (r.size,)
    np.testing.assert_allclose(jnp.sum(rows**2), term.mean(r), rtol=1e-14)
    np.testing.assert_allclose(rows / rows[0], r.ravel() / r.ravel()[0], rtol=1e-12)
    assert term.mean(r.astype("float32")).dtype == jnp.float32
    assert term.rows(r.astype("float32"), 6).dtype == jnp.float32


class Two(hpx.AbstractLeastSquares):
    """A term for each parity."""

    @property
    def terms(self):
        off = lambda by, net, lam, x: net(x) - lam[0] - by  # noqa: E731
        return {
            "even": Term(functools.partial(off, 0.0)),
            "odd": Term(functools.partial(off, 1.0), 2.0),
        }

    def sample(self, model, *, key):
        return Batch(jnp.ones((2, 1)), {"even": jax.random.normal(key, (2, 3))})


def test_a_loss_has_the_terms_that_a_batch_has_items_for():
    lam, x = np.array([[1.0], [3.0]]), np.arange(6.0).reshape(2, 3)
    model = lambda lam: lambda x: lam[0] * x  # noqa: E731
    even = np.mean((lam * x - lam) ** 2)
    odd = 2 * np.mean((lam * x[:, :1] - lam - 1) ** 2)
    for items, expected in (
        ({"even": x, "odd": x[:, :1]}, {"even": even, "odd": odd}),
        ({"even": x, "odd": x[:, :0]}, {"even": even}),
        ({"odd": x[:, :1]}, {"odd": odd}),
    ):
        found = Two()(model, Batch(lam, items)).terms
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6)
    for items in ({}, {"even": x[:, :0]}, {"even": x, "third": x}):
        with pytest.raises(ValueError, match="batch"):
            Two()(model, Batch(lam, items))
