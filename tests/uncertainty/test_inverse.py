import gc
import logging
import warnings
import weakref

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
from hyperpinn_eqx.physics.sampling import lattice
from hyperpinn_eqx.uncertainty.inverse import _in_blocks, infer

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
    assert 1000 < found.effective_sample_size < 4000
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
        np.testing.assert_allclose(whole.effective_sample_size[i], one.effective_sample_size, rtol=1e-9)
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
    for noise in (None, 0.1):
        found = infer(decay, np.exp(-0.7 * TIMES), RATE, noise=noise)
        np.testing.assert_allclose(found.lam, 0.7, rtol=1e-12)
        assert np.isfinite(found.weights).all()
        if noise is None:
            assert found.noise < 1e-12


def test_where_all_is_missing_the_posterior_is_the_prior():
    run = jax.jit(lambda y: infer(decay, y, RATE, noise=0.1))
    low, high = run(jnp.full(20, jnp.nan)).interval(0.8)
    np.testing.assert_allclose([low, high], [[10**-0.8], [10**0.8]], rtol=0.03)


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
        points = lattice(1000, d)
        assert points.shape == (1000, d)
        # Of independent points, one box in three would be off by more than 0.015.
        for corner in np.random.default_rng(5).uniform(size=(50, d)):
            inside = np.all(points < corner, axis=1).mean()
            assert abs(inside - corner.prod()) < 0.015


# --- What holds at the call -----------------------------------------------------------


def test_what_predict_reads_is_read_at_the_call():
    class Sensors:
        gain = 1.0

    def predict(lam):
        return Sensors.gain * jnp.exp(-lam * times)

    for duration, gain in ((2, 1.0), (3, 1.0), (3, 2.0)):
        times, Sensors.gain = jnp.linspace(0.1, duration, 20), gain
        found = infer(predict, predict(jnp.array([1.5])), RATE, noise=0.01)
        np.testing.assert_allclose(found.lam, 1.5, rtol=1e-4)


def test_a_loop_over_data_compiles_once_and_keeps_none_of_them(caplog):
    gone, compiled = [], []

    def one(i):
        times = jnp.linspace(0.1, 2 + i, 20)
        gone.append(weakref.ref(times))
        seen = np.exp(-1.5 * np.asarray(times))
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            found = infer(lambda lam: jnp.exp(-3 * lam * times / 3), seen, RATE)
        np.testing.assert_allclose(found.lam, 1.5, rtol=1e-4)
        compiled.append(sum("XLA compilation" in r.message for r in caplog.records))

    for i in range(4):
        one(i)
    gc.collect()
    assert compiled[0] > 0 and compiled[1:] == [0] * 3
    assert [one() for one in gone] == [None] * 4


def test_many_observations_are_not_predicted_at_the_same_time():
    n, width = 20_000, 16

    def predict(lam):
        return jnp.sum(
            jnp.tanh(lam[0] * jnp.linspace(0, 1, n * width).reshape(n, -1)), 1
        )

    run = jax.jit(lambda seen: infer(predict, seen, RATE, noise=0.1).lam)
    compiled = run.lower(jax.ShapeDtypeStruct((n,), jnp.float32)).compile()
    # At the same time, 500 samples would need 640 MB.
    assert compiled.memory_analysis().temp_size_in_bytes < 64e6


@pytest.mark.parametrize("size", (1, 3, 7, 8))
def test_blocks_leave_nothing_out(size):
    x = jnp.arange(14.0).reshape(7, 2)
    found = _in_blocks(lambda row: row[0] - 2 * row[1], x, size)
    np.testing.assert_array_equal(found, x[:, 0] - 2 * x[:, 1])


# --- Missing observations -------------------------------------------------------------

GAPS = np.isin(np.arange(20), (0, 7, 8, 19))


def with_gaps(lam):
    """Neither a number nor a derivative where there is no observation."""
    t = jnp.asarray(np.where(GAPS, np.nan, TIMES), lam.dtype)
    return jnp.exp(-lam * t)


@pytest.mark.parametrize("noise", (0.05, None))
def test_missing_observations_are_as_if_never_made(x64, noise):
    y = observed(1.0)
    whole = decay(jnp.ones(1)) * 0 + y
    right = infer(lambda lam: decay(lam)[~GAPS], y[~GAPS], RATE, noise=noise)
    junk = np.where(GAPS, 1e300, y)
    ways = [
        (np.where(GAPS, np.nan, whole), noise),
        (np.ma.array(junk, mask=GAPS), noise),
    ]
    if noise is not None:
        each = np.full(20, noise)
        ways += [
            (junk, np.where(GAPS, np.inf, noise)),
            (junk, np.ma.array(each, mask=GAPS)),
        ]
        ways += [(ways[0][0], np.where(GAPS, np.nan, noise))]
    for seen, given in ways:
        found = infer(with_gaps, seen, RATE, noise=given)
        for name in ("lam", "covariance", "samples", "weights"):
            np.testing.assert_allclose(
                getattr(found, name), getattr(right, name), rtol=1e-6, atol=1e-12
            )
        if noise is None:
            np.testing.assert_allclose(found.noise, right.noise, rtol=1e-6)


def test_each_of_many_cases_has_its_own_gaps(x64):
    y = observed(1.0)
    ys = np.stack([y, np.where(GAPS, np.nan, y), np.full(20, np.nan)])
    found = jax.jit(jax.vmap(lambda y: infer(decay, y, RATE)))(ys)
    for i in range(2):
        one = infer(decay, ys[i], RATE)
        np.testing.assert_allclose(found.lam[i], one.lam, rtol=1e-9)
        np.testing.assert_allclose(found.noise[i], one.noise, rtol=1e-9)
    assert np.isnan(found.weights[2]).all()


# --- Results to be doubted ------------------------------------------------------------


@pytest.mark.parametrize("known", (True, False))
@pytest.mark.parametrize("rate, end", ((20.0, "upper"), (0.02, "lower")))
def test_a_truth_beyond_the_range_is_told(rate, end, known):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        infer(decay, observed(rate, 0.01), RATE, noise=0.01 if known else None)
    edge = [str(one.message) for one in told if "range" in str(one.message)]
    assert len(edge) == 1 and "rate" in edge[0] and end in edge[0]


def test_a_misfit_is_told_with_its_size():
    y = observed(1.0) + 0.5 * (-1) ** np.arange(20)
    with pytest.warns(
        UserWarning, match=r"observations.* (9\.\d|10|11) times the noise"
    ):
        infer(decay, y, RATE, noise=0.05)


def test_a_truth_inside_is_no_reason_for_doubt():
    # A warning would be an error. For the last, the observations say nothing.
    rates = 10 ** np.random.default_rng(7).uniform(-1, 1, 20)
    for i, rate in enumerate([*rates, 0.1, 0.1, 10, 10]):
        for noise in (0.05, None):
            infer(decay, observed(rate, seed=i), RATE, noise=noise)
        infer(decay, observed(rate, 30, seed=i), RATE, noise=30.0)
        infer(decay, np.exp(-rate * TIMES), RATE)


def test_nothing_is_told_of_what_is_traced():
    y, noise = jnp.asarray(observed(20.0, 0.01), jnp.float32), jnp.full(20, 0.01)
    # Even if all that is given is known.
    runs = (
        jax.jit(lambda y: infer(decay, y, RATE, noise=noise)),
        jax.jit(lambda _: infer(decay, y, RATE, noise=noise)),
    )
    for run in runs:
        np.testing.assert_allclose(run(y).lam, 10, rtol=1e-5)


# --- Precision and units --------------------------------------------------------------


def test_predictions_in_float64_in_a_session_in_float32():
    with jax.enable_x64(True):
        times = jnp.asarray(TIMES)

    def predict(lam):
        with jax.enable_x64(True):
            return jnp.exp(-jax.lax.convert_element_type(lam, jnp.float64) * times)

    y = observed(1.0)
    right = infer(decay, y, RATE, noise=0.05)
    run = jax.vmap(lambda y: infer(predict, y, RATE, noise=0.05))
    inside = jax.tree.map(lambda leaf: leaf[0], jax.jit(run)(y[None]))
    for found in (infer(predict, y, RATE, noise=0.05), inside):
        assert found.lam.dtype == found.weights.dtype == jnp.float32
        np.testing.assert_allclose(found.lam, right.lam, rtol=1e-4)
        np.testing.assert_allclose(found.interval(), right.interval(), rtol=1e-3)


def test_a_result_in_float64_can_be_used_outside():
    with jax.enable_x64(True):
        found = infer(decay, observed(1.0), RATE, noise=0.05)
        right = found.interval()
    np.testing.assert_allclose(found.interval(), right, rtol=1e-6)


@pytest.mark.parametrize("unit", (1e-25, 1e25))
@pytest.mark.parametrize("noise", (0.05, None))
def test_units_of_the_observations_change_nothing(unit, noise):
    y, given = observed(1.0), None if noise is None else noise * unit
    right = infer(decay, y, RATE, noise=noise)
    found = infer(lambda lam: unit * decay(lam), unit * y, RATE, noise=given)
    np.testing.assert_allclose(found.lam, right.lam, rtol=1e-4)
    np.testing.assert_allclose(found.interval(), right.interval(), rtol=1e-3)
    np.testing.assert_allclose(found.noise / unit, right.noise, rtol=1e-4)


# --- What is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"observations": TIMES[:3]}, r"shape \(3,\), expected .* \(20,\)"),
        ({"observations": TIMES * np.inf}, "observations holds inf"),
        ({"observations": TIMES * np.nan}, "observations.* all missing"),
        ({"noise": np.full(20, np.inf)}, "observations.* all missing"),
        (
            {"noise": np.append(np.full(19, 0.1), np.nan)},
            "(?s)noise = .*expected numbers above",
        ),
        (
            {"predict": lambda lam: jax.lax.complex(decay(lam), decay(lam))},
            "predict.*expected real numbers",
        ),
        ({"box": Box(rate=(1, 1))}, "expected one with a free parameter"),
        ({"noise": 0.0}, "noise = 0.0, expected numbers above 0"),
        ({"noise": [0.1, 0.2]}, r"noise has shape \(2,\), expected one number"),
        ({"noise": np.ones((2, 20))}, "expected one number, or the shape"),
    ],
)
def test_what_makes_no_sense_is_an_error(unchecked, change, complaint):
    good = {"predict": decay, "observations": observed(1.0), "box": RATE, "noise": 0.1}
    with pytest.raises(ValueError, match=complaint):
        infer(**good | change)


def test_unknown_noise_needs_more_observations_than_parameters():
    with pytest.raises(ValueError, match="2 observations, expected a number, or more"):
        infer(lambda lam: lam, np.array([1.0, 20.0]), PLANE)
    with pytest.raises(ValueError, match="1 observations"):
        infer(decay, np.where(TIMES < TIMES[1], observed(1.0), np.nan), RATE)
