import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from hyperpinn_eqx import Box
from hyperpinn_eqx.uncertainty.posterior import Fit, Posterior, warn

# Of two parameters.
GOOD = {"lam": np.ones(2), "covariance": np.eye(2), "noise": np.ones(())}


def weighted(samples, weights):
    return Posterior(**GOOD, samples=samples, weights=weights)


def test_the_interval_of_many_samples_is_that_of_their_distribution(x64):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, 2)) * [1, 3] + [0, 5]
    low, high = weighted(values, np.full(4000, 1 / 4000)).interval(0.8)
    exact = np.quantile(values, [0.1, 0.9], axis=0, method="hazen")
    np.testing.assert_allclose([low, high], exact, rtol=1e-9)


def test_weights_make_one_distribution_of_the_samples_of_another(x64):
    z = np.random.default_rng(1).permutation(np.linspace(-6, 6, 4001))
    weights = norm.pdf(z) / norm.pdf(z).sum()
    low, high = weighted(np.stack([z, 5 - 3 * z], axis=1), weights).interval(0.9)
    end = norm.ppf(0.95)
    np.testing.assert_allclose(low, [-end, 5 - 3 * end], rtol=0, atol=1e-4)
    np.testing.assert_allclose(high, [end, 5 + 3 * end], rtol=0, atol=1e-4)


def test_equal_weights_all_count_and_a_single_one_counts_alone(x64):
    samples = np.zeros((8, 2))
    assert weighted(samples, np.full(8, 1 / 8)).effective_sample_size == 8
    assert weighted(samples, np.eye(8)[3]).effective_sample_size == 1
    assert weighted(samples, np.array([0.5, 0.5, *[0] * 6])).effective_sample_size == 2


def test_many_at_once_are_a_loop_over_them(x64):
    rng = np.random.default_rng(2)
    samples = jnp.asarray(rng.normal(size=(3, 20, 2)))
    weights = jnp.asarray(rng.dirichlet(np.ones(20), size=3))
    whole = jax.vmap(weighted)(samples, weights)
    ends = whole.interval(0.5)
    for i in range(3):
        one = weighted(samples[i], weights[i])
        np.testing.assert_array_equal(whole.effective_sample_size[i], one.effective_sample_size)
        np.testing.assert_array_equal([e[i] for e in ends], one.interval(0.5))


# --- What is doubtful -----------------------------------------------------------------

PLANE = Box(a=(-2, 4), b=(10, 30))


def told(z, slope, curvature, known=True, box=PLANE, weights=None, observations=20):
    """What is said of the free parameters z, where the misfit is as it should be."""
    p, n = len(box), 1000
    weights = np.full(n, 1 / n) if weights is None else weights
    good = GOOD | {"lam": np.ones(p), "covariance": np.eye(p)}
    found = Posterior(**good, samples=np.zeros((n, p)), weights=weights)
    numbers = (z, float(observations), slope, curvature, float(observations))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn(found, box, Fit(*map(jnp.asarray, numbers)), known)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("known", (True, False))
def test_the_observations_have_to_want_it_beyond_the_range(x64, known):
    # One standard deviation is a tenth of the scaled range, and the slope wants λ out
    # by so many of them.
    for out, doubtful in ((2.5, False), (4.0, True), (-4.0, False)):
        one = told([-1.0, 0.2], [-10 * out, 0.0], 100 * np.eye(2), known)
        assert len(one) == doubtful and all("lower end" in text for text in one)
    # On the other end, a parameter that goes along with the first: their sum is known.
    together = 100 * np.array([[1, 1], [1, 1.01]])
    assert not told([0.2, 1.0], [0.0, 2.0], together, known)
    assert "b lies on the upper" in told([0.2, 1.0], [0.0, 5.0], together, known)[0]


def test_no_end_is_where_nothing_is_known_and_on_a_circle(x64):
    assert not told([1.0, 0.0], [0.5, 0.0], np.diag([1e-4, 1.0]))
    circle = Box(angle=(0, 1, "periodic"), b=(10, 30))
    assert not told([1.0, 0.0], [50.0, 0.0], 100 * np.eye(2), box=circle)


def test_few_observations_tell_less_of_their_own_noise(x64):
    # Student's t, here 6.2, is nothing special with two degrees of freedom.
    pull = 10 * np.sqrt(2 * 0.95)
    one = [-1.0, 0.2], [-pull, 0.0], 100 * np.eye(2)
    assert not told(*one, known=False, observations=4)


def test_few_samples_that_count_are_doubtful(x64):
    for many in (5, 20):
        weights = np.zeros(1000)
        weights[:many] = 1 / many
        said = told([0.1, 0.2], [0.0, 0.0], 100 * np.eye(2), weights=weights)
        assert len(said) == (many < 10) and all("samples" in text for text in said)
