import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from hyperpinn_eqx import Box
from hyperpinn_eqx.uncertainty.posterior import Fit, Posterior, warn

pytestmark = pytest.mark.usefixtures("x64")


def weighted(samples, weights):
    """Of two parameters."""
    good = {"lam": np.ones(2), "covariance": np.eye(2), "noise": np.ones(())}
    return Posterior(**good, samples=samples, weights=weights)


def test_the_interval_of_many_samples_is_that_of_their_distribution():
    values = np.random.default_rng(0).normal(size=(4000, 2)) * [1, 3] + [0, 5]
    low, high = weighted(values, np.full(4000, 1 / 4000)).interval(0.8)
    exact = np.quantile(values, [0.1, 0.9], axis=0, method="hazen")
    np.testing.assert_allclose([low, high], exact, rtol=1e-9)


def test_weights_make_one_distribution_of_the_samples_of_another():
    z = np.random.default_rng(1).permutation(np.linspace(-6, 6, 4001))
    weights = norm.pdf(z) / norm.pdf(z).sum()
    low, high = weighted(np.stack([z, 5 - 3 * z], axis=1), weights).interval(0.9)
    end = norm.ppf(0.95)
    np.testing.assert_allclose(low, [-end, 5 - 3 * end], rtol=0, atol=1e-4)
    np.testing.assert_allclose(high, [end, 5 + 3 * end], rtol=0, atol=1e-4)


def test_equal_weights_all_count_and_a_single_one_counts_alone():
    for many in (1, 2, 8):
        weights = np.append(np.full(many, 1 / many), np.zeros(8 - many))
        assert weighted(np.zeros((8, 2)), weights).effective_sample_size == many


def test_many_at_once_are_a_loop_over_them():
    rng = np.random.default_rng(2)
    samples = jnp.asarray(rng.normal(size=(3, 20, 2)))
    weights = jnp.asarray(rng.dirichlet(np.ones(20), size=3))
    whole = jax.vmap(weighted)(samples, weights)
    ends, sizes = whole.interval(0.5), whole.effective_sample_size
    for i in range(3):
        one = weighted(samples[i], weights[i])
        np.testing.assert_array_equal(sizes[i], one.effective_sample_size)
        np.testing.assert_array_equal([e[i] for e in ends], one.interval(0.5))


PLANE = Box(a=(-2, 4), b=(10, 30))
WELL_KNOWN = 100 * np.eye(2)


def told(z, slope, curvature, known=True, box=PLANE, weights=None, observations=20):
    """What is said of the free parameters z, where the misfit is as it should be."""
    weights = np.full(1000, 1e-3) if weights is None else weights
    numbers = (z, float(observations), slope, curvature, float(observations))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = weighted(np.zeros((1000, 2)), weights)
        warn(found, box, Fit(*map(jnp.asarray, numbers)), known)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("known", [True, False])
def test_the_observations_have_to_want_it_beyond_the_range(known):
    # One standard deviation is a tenth of the scaled range, and the slope wants λ out
    # by so many of them.
    for out, doubtful in ((2.5, False), (4.0, True), (-4.0, False)):
        one = told([-1.0, 0.2], [-10 * out, 0.0], WELL_KNOWN, known)
        assert len(one) == doubtful and all("lower" in text for text in one)
    # On the other end, a parameter that goes along with the first: their sum is known.
    together = 100 * np.array([[1, 1], [1, 1.01]])
    assert not told([0.2, 1.0], [0.0, 2.0], together, known)
    (one,) = told([0.2, 1.0], [0.0, 5.0], together, known)
    assert "b" in one.split() and "upper" in one


def test_no_end_is_where_nothing_is_known_and_on_a_circle():
    assert not told([1.0, 0.0], [0.5, 0.0], np.diag([1e-4, 1.0]))
    circle = Box(angle=(0, 1, "periodic"), b=(10, 30))
    assert not told([1.0, 0.0], [50.0, 0.0], WELL_KNOWN, box=circle)
    # Student's t, here 6.2, is nothing special with two degrees of freedom.
    pull = 10 * np.sqrt(2 * 0.95)
    assert not told([-1.0, 0.2], [-pull, 0.0], WELL_KNOWN, False, observations=4)


def test_few_samples_that_count_are_doubtful():
    for many in (5, 20):
        weights = np.append(np.full(many, 1 / many), np.zeros(1000 - many))
        said = told([0.1, 0.2], [0.0, 0.0], WELL_KNOWN, weights=weights)
        assert len(said) == (many < 10) and all("samples" in text for text in said)
