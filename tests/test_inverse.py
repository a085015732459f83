import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import norm

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box
from hyperpinn_eqx.inverse import _lattice, infer

RATE = Box(rate=(0.1, 10, "log"))
TIMES = np.linspace(0.1, 2, 20)


def decay(lam):
    return jnp.exp(-lam * jnp.asarray(TIMES, lam.dtype))


def observed(rate, noise=0.05, seed=0):
    clean = np.exp(-rate * TIMES)
    return clean + noise * np.random.default_rng(seed).normal(size=TIMES.shape)


def exact_interval(log_likelihood, z, level):
    """The central interval of a posterior on a fine grid of z."""
    density = np.exp(log_likelihood - np.max(log_likelihood))
    below = np.cumsum(density) - density / 2
    return np.interp([(1 - level) / 2, (1 + level) / 2], below / density.sum(), z)


# --- Against what is known in closed form ---------------------------------------------

PLANE = Box(a=(-2, 4), b=(10, 30))
A = np.random.default_rng(0).normal(size=(20, 2))


def linear(lam):
    return jnp.asarray(A, lam.dtype) @ lam


def test_a_linear_model_has_a_gaussian_posterior(x64):
    deviation = np.random.default_rng(1).uniform(0.05, 0.2, 20)
    y = A @ [1.5, 22] + deviation * np.random.default_rng(2).normal(size=20)
    found = infer(linear, y, PLANE, noise=deviation, samples=4000)
    W = A / deviation[:, None]
    mean = np.linalg.lstsq(W, y / deviation, rcond=None)[0]
    np.testing.assert_allclose(found.lam, mean, rtol=1e-6)
    half = np.array([3.0, 10.0])
    scaled = np.linalg.inv((W * half).T @ (W * half) + 3 * np.eye(2))
    np.testing.assert_allclose(found.covariance, scaled, rtol=1e-9)
    sd = np.sqrt(np.diag(np.linalg.inv(W.T @ W)))
    for level in (0.5, 0.9, 0.99):
        ends = mean + norm.ppf((1 + level) / 2) * sd * np.array([[-1], [1]])
        gap = (np.stack(found.interval(level)) - ends) / sd
        assert np.abs(gap).max() < 0.05
    assert 1000 < found.effective < 4000
    np.testing.assert_array_equal(found.noise, deviation)


# With the larger noise, the ends of the range cut the posterior off.
@pytest.mark.parametrize("noise, known", [(0.3, False), (3.0, True)])
def test_intervals_cover_as_often_as_they_say(x64, noise, known):
    cases, rng = 500, np.random.default_rng(3)
    true = rng.uniform(PLANE.low, PLANE.high, (cases, 2))
    clean = true @ A[:6].T
    y = jnp.asarray(clean + noise * rng.normal(size=clean.shape))

    @jax.jit
    @jax.vmap
    def run(y):
        given = noise if known else None
        return infer(lambda lam: linear(lam)[:6], y, PLANE, noise=given, samples=200)

    found = run(y)
    for level in (0.5, 0.9):
        low, high = found.interval(level)
        covered = np.mean((low <= true) & (true <= high), axis=0)
        # Four standard deviations of a share of so many cases.
        assert np.abs(covered - level).max() < 4 * np.sqrt(level * (1 - level) / cases)


# --- Against a fine grid --------------------------------------------------------------


@pytest.mark.parametrize("known", (True, False))
@pytest.mark.parametrize("rate", (0.1, 0.7, 9.9))
def test_a_curved_or_cut_off_posterior_is_that_on_a_grid(x64, rate, known):
    y = observed(rate, seed=6)
    found = infer(decay, y, RATE, noise=0.05 if known else None)
    z = np.linspace(-1, 1, 20001)
    misfit = ((np.exp(-np.outer(10**z, TIMES)) - y) ** 2).sum(1)
    likelihood = -misfit / 2 / 0.05**2 if known else -10 * np.log(misfit)
    best = 10 ** z[misfit.argmin()]
    np.testing.assert_allclose(found.lam, best, rtol=1e-3)
    for level in (0.5, 0.9):
        low, high = found.interval(level)
        width = np.diff(exact := exact_interval(likelihood, z, level))
        ends = np.log10(np.array([low[0], high[0]]))
        assert np.abs(ends - exact).max() < 0.02 * width
        assert (low > 0.1) & (high < 10)
    if not known:
        np.testing.assert_allclose(found.noise, np.sqrt(misfit.min() / 19), rtol=1e-3)


def test_the_end_of_a_range_can_be_the_most_probable(x64):
    found = infer(decay, np.exp(-0.098 * TIMES), RATE, noise=0.01)
    np.testing.assert_allclose(found.lam, 0.1, rtol=1e-6)
    low, high = found.interval(0.9)
    assert 0.1 < low < high < 0.11


def test_without_information_the_posterior_is_the_prior(x64):
    box = Box(rate=(0.1, 10, "log"), other=(0.0, 4.0))
    found = infer(lambda lam: 0 * lam, np.array([0.1, -0.2]), box, noise=1.0)
    low, high = found.interval(0.8)
    np.testing.assert_allclose(low, [10**-0.8, 0.4], atol=0.02)
    np.testing.assert_allclose(np.log10(high), np.log10([10**0.8, 3.6]), atol=0.02)
    np.testing.assert_allclose(found.covariance, np.eye(2) / 3, atol=1e-12)


def test_the_best_of_many_minima_is_found(x64):
    box, t = Box(frequency=(1.0, 40.0)), jnp.linspace(0, 3, 60)
    noise = 0.3 * np.random.default_rng(4).normal(size=60)
    wave = eqx.filter_jit(lambda lam: jnp.sin(lam * t))
    for true in (2.0, 17.0, 38.5):
        found = infer(wave, np.sin(true * t) + noise, box, noise=0.3)
        low, high = found.interval(0.99)
        assert (low < true) & (true < high) & (high - low < 0.5)


# --- Ranges of every kind -------------------------------------------------------------


def test_a_fixed_parameter_stays_fixed(x64):
    box = Box(size=(2, 2), rate=(0.1, 10, "log"))
    y = 2 * observed(1.3)
    found = infer(lambda lam: lam[0] * decay(lam[1:]), y, box, noise=0.1)
    alone = infer(lambda lam: 2 * decay(lam), y, RATE, noise=0.1)
    np.testing.assert_allclose(found.lam, [2, alone.lam[0]], rtol=1e-9)
    np.testing.assert_array_equal(found.covariance[0], 0)
    np.testing.assert_allclose(found.covariance[1, 1], alone.covariance[0, 0])
    low, high = found.interval(0.9)
    np.testing.assert_allclose([low[0], high[0]], 2)
    np.testing.assert_allclose([low[1]], alone.interval(0.9)[0])


@pytest.mark.parametrize("true", (0.02, 0.5, 0.98))
def test_an_angle_has_no_end(x64, true):
    box, x = Box(phase=(0, 1, "periodic")), jnp.linspace(0, 1, 20)
    y = np.sin(2 * np.pi * (x - true))
    wave = eqx.filter_jit(lambda lam: jnp.sin(2 * jnp.pi * (x - lam)))
    found = infer(wave, y, box, noise=0.3)
    np.testing.assert_allclose(found.lam, true, atol=1e-6)
    low, high = found.interval(0.9)
    # The two ends are as far from the middle, even across the seam.
    np.testing.assert_allclose(
        [low, high], [2 * true - high, 2 * true - low], atol=0.01
    )
    sd = np.sqrt(found.covariance[0, 0]) / 2
    np.testing.assert_allclose((high - low) / 2, 1.645 * sd, rtol=0.1)


def test_where_nothing_finite_is_predicted_lam_cannot_be(x64):
    found = infer(
        lambda lam: jnp.where(lam < 1, jnp.nan, decay(lam)),
        observed(1.0),
        RATE,
        noise=0.05,
    )
    low, high = found.interval(0.9)
    assert (1 <= found.lam) & (1 <= low) & (low < high)
    with pytest.raises(ValueError, match="no finite numbers"):
        infer(lambda lam: jnp.nan * decay(lam), observed(1.0), RATE, noise=0.05)


# --- As people use it -----------------------------------------------------------------


def test_many_cases_at_once_are_a_loop_over_them(x64):
    ys = np.stack([observed(rate, seed=i) for i, rate in enumerate((0.2, 1.0, 5.0))])
    whole = jax.jit(jax.vmap(lambda y: infer(decay, y, RATE)))(ys)
    ends = whole.interval(0.9)
    for i, y in enumerate(ys):
        one = infer(decay, y, RATE)
        np.testing.assert_allclose(whole.lam[i], one.lam, rtol=1e-9)
        np.testing.assert_allclose(whole.covariance[i], one.covariance, rtol=1e-9)
        np.testing.assert_allclose(whole.effective[i], one.effective, rtol=1e-9)
        for end, alone in zip(ends, one.interval(0.9), strict=True):
            np.testing.assert_allclose(end[i], alone, rtol=1e-9)


def test_single_precision_is_enough():
    y = observed(1.0)
    single = infer(decay, y, RATE, noise=0.05)
    assert single.lam.dtype == single.weights.dtype == jnp.float32
    with jax.enable_x64(True):
        double = infer(decay, y, RATE, noise=0.05)
        assert double.lam.dtype == jnp.float64
        ends = double.interval()
    np.testing.assert_allclose(single.lam, double.lam, rtol=1e-4)
    np.testing.assert_allclose(single.interval(), ends, rtol=1e-3)


def test_data_without_noise_are_fitted_to_the_last_digit(x64):
    found = infer(decay, np.exp(-0.7 * TIMES), RATE)
    np.testing.assert_allclose(found.lam, 0.7, rtol=1e-12)
    assert found.noise < 1e-12 and np.isfinite(found.weights).all()


def test_through_a_hypernetwork_and_through_a_solver(hyper, getkey):
    points = hpx.uniform(hpx.Box(t=(0, 1), x=(-1, 1)), (30,), key=getkey())
    noise = 1e-3 * jr.normal(getkey(), (30,))

    @jax.jit
    def run(points, noise):
        def predict(lam):
            return jax.vmap(hyper(lam))(points)

        return infer(predict, predict(jnp.array(0.2)) + noise, hyper.parameters)

    low, high = run(points, noise).interval(0.999)
    assert (low < 0.2) & (0.2 < high) & (high < 2 * low)

    def solved(lam):
        term = dfx.ODETerm(lambda t, y, args: -lam[0] * y)
        saveat = dfx.SaveAt(ts=jnp.asarray(TIMES, jnp.float32))
        return dfx.diffeqsolve(
            term,
            dfx.Heun(),
            *(0.0, 2.0, 0.02, jnp.ones(())),
            saveat=saveat,
            adjoint=dfx.ForwardMode(),
        ).ys

    y = observed(1.0)
    by_hand, by_solver = (infer(f, y, RATE, noise=0.05) for f in (decay, solved))
    np.testing.assert_allclose(by_solver.lam, by_hand.lam, rtol=1e-3)
    np.testing.assert_allclose(by_solver.interval(), by_hand.interval(), rtol=0.01)


def test_the_lattice_is_even():
    for d in (1, 2, 3):
        points = _lattice(1000, d)
        assert points.shape == (1000, d)
        # Of independent points, one box in three would be off by more than 0.015.
        for corner in np.random.default_rng(5).uniform(size=(50, d)):
            inside = np.all(points < corner, axis=1).mean()
            assert abs(inside - corner.prod()) < 0.015


# --- What is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"observations": TIMES[:3]}, r"shape \(3,\), expected .* \(20,\)"),
        ({"observations": TIMES * np.nan}, "observations holds nan"),
        ({"box": Box(rate=(1, 1))}, "expected one with a free parameter"),
        ({"noise": 0.0}, "noise = 0.0, expected numbers above 0"),
        ({"noise": [0.1, 0.2]}, r"noise has shape \(2,\), expected one number"),
        ({"noise": np.ones((2, 20))}, "expected one number, or the shape"),
        ({"samples": 15}, "expected an integer of at least 16"),
    ],
)
def test_what_makes_no_sense_is_an_error(unchecked, change, complaint):
    good = {"predict": decay, "observations": observed(1.0), "box": RATE, "noise": 0.1}
    with pytest.raises(ValueError, match=complaint):
        infer(**good | change)


def test_unknown_noise_needs_more_observations_than_parameters():
    with pytest.raises(ValueError, match="2 observations, expected a number, or more"):
        infer(lambda lam: lam, np.array([1.0, 20.0]), PLANE)


def test_junk(throw_junk_at):
    good = {"predict": decay, "observations": observed(1.0), "box": RATE, "noise": 0.1}
    throw_junk_at(infer, **good, samples=100, examples=25)
