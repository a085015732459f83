import diffrax as dfx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import norm

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, infer
from hyperpinn_eqx.uncertainty.inverse import _in_blocks

RATE = Box(rate=(0.1, 10, "log"))
TIMES = np.linspace(0.1, 2, 20)


def decay(lam):
    return jnp.exp(-lam * jnp.asarray(TIMES, lam.dtype))


def observed(rate, noise=0.05, seed=0):
    clean = np.exp(-rate * TIMES)
    return clean + noise * np.random.default_rng(seed).normal(size=TIMES.shape)


def same(found, right, rtol, *names):
    for name in names or ("lam", "covariance", "samples", "weights", "noise"):
        a, b = getattr(found, name), getattr(right, name)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol**2)


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
@pytest.mark.parametrize(("noise", "known"), [(0.3, False), (3.0, True)])
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


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("rate", [0.1, 0.7, 9.9])
def test_a_curved_or_cut_off_posterior_is_that_on_a_grid(x64, rate, known):
    y, z = observed(rate, seed=6), np.linspace(-1, 1, 20001)
    found = infer(decay, y, RATE, noise=0.05 if known else None)
    misfit = ((np.exp(-np.outer(10**z, TIMES)) - y) ** 2).sum(1)
    likelihood = -misfit / 2 / 0.05**2 if known else -10 * np.log(misfit)
    np.testing.assert_allclose(found.lam, 10 ** z[misfit.argmin()], rtol=1e-3)
    density = np.exp(likelihood - likelihood.max())
    below = (np.cumsum(density) - density / 2) / density.sum()
    for level in (0.5, 0.9):
        low, high = found.interval(level)
        exact = np.interp([(1 - level) / 2, (1 + level) / 2], below, z)
        ends = np.log10(np.array([low[0], high[0]]))
        assert np.abs(ends - exact).max() < 0.02 * np.diff(exact)
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
    for true in (2.0, 17.0, 38.5):
        y = np.sin(true * t) + noise
        low, high = infer(lambda lam: jnp.sin(lam * t), y, box, noise=0.3).interval(
            0.99
        )
        assert (low < true) & (true < high) & (high - low < 0.5)


def test_data_without_noise_are_fitted_to_the_last_digit(x64):
    for noise in (None, 0.1):
        found = infer(decay, np.exp(-0.7 * TIMES), RATE, noise=noise)
        np.testing.assert_allclose(found.lam, 0.7, rtol=1e-12)
        assert np.isfinite(found.weights).all() and (noise or found.noise < 1e-12)


def test_a_fixed_parameter_stays_fixed(x64):
    box = Box(size=(2, 2), rate=(0.1, 10, "log"))
    y = 2 * observed(1.3)
    found = infer(lambda lam: lam[0] * decay(lam[1:]), y, box, noise=0.1)
    alone = infer(lambda lam: 2 * decay(lam), y, RATE, noise=0.1)
    np.testing.assert_allclose(found.lam, [2, alone.lam[0]], rtol=1e-9)
    covariance = np.diag([0, alone.covariance[0, 0]])
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-7)
    for end, right in zip(found.interval(0.9), alone.interval(0.9), strict=True):
        np.testing.assert_allclose(end, [2, right[0]])


@pytest.mark.parametrize("true", [0.02, 0.5, 0.98])
def test_an_angle_has_no_end(x64, true):
    box, x = Box(phase=(0, 1, "periodic")), jnp.linspace(0, 1, 20)
    y = np.sin(2 * np.pi * (x - true))
    found = infer(lambda lam: jnp.sin(2 * jnp.pi * (x - lam)), y, box, noise=0.3)
    np.testing.assert_allclose(found.lam, true, atol=1e-6)
    low, high = found.interval(0.9)
    # The two ends are as far from the middle, even across the seam.
    np.testing.assert_allclose(low + high, [2 * true], atol=0.01)
    sd = np.sqrt(found.covariance[0, 0]) / 2
    np.testing.assert_allclose((high - low) / 2, 1.645 * sd, rtol=0.1)


def test_where_nothing_finite_is_predicted_lam_cannot_be(x64):
    def above(least):
        predict = lambda lam: jnp.where(lam < least, jnp.nan, decay(lam))  # noqa: E731
        return infer(predict, observed(1.0), RATE, noise=0.05)

    found = above(1.0)
    low, high = found.interval(0.9)
    assert (1 <= found.lam) & (1 <= low) & (low < high)
    with pytest.raises(ValueError, match="predict"):
        above(np.inf)


def test_through_a_hypernetwork_and_through_a_solver(hyper, getkey):
    points = hpx.uniform(hyper.main.inputs, 30, key=getkey())
    noise = 1e-3 * jr.normal(getkey(), (30,))

    @jax.jit
    def run(points, noise):
        predict = lambda lam: jax.vmap(hyper(lam))(points)  # noqa: E731
        return infer(predict, predict(jnp.array(0.2)) + noise, hyper.parameters)

    low, high = run(points, noise).interval(0.999)
    assert (low < 0.2) & (0.2 < high) & (high < 2 * low)

    def solved(lam):
        return dfx.diffeqsolve(
            dfx.ODETerm(lambda t, y, args: -lam[0] * y),
            dfx.Heun(),
            *(0.0, 2.0, 0.02, jnp.ones(())),
            saveat=dfx.SaveAt(ts=jnp.asarray(TIMES, jnp.float32)),
            adjoint=dfx.ForwardMode(),
        ).ys

    by_hand, by_solver = (
        infer(f, observed(1.0), RATE, noise=0.05) for f in (decay, solved)
    )
    same(by_solver, by_hand, 1e-3, "lam")
    np.testing.assert_allclose(by_solver.interval(), by_hand.interval(), rtol=0.01)


def test_any_precision_is_enough():
    with jax.enable_x64(True):
        double, times = (
            infer(decay, observed(1.0), RATE, noise=0.05),
            jnp.asarray(TIMES),
        )
        assert double.lam.dtype == jnp.float64
        ends = double.interval()

    def wide(lam):
        """In float64, in a session in float32."""
        with jax.enable_x64(True):
            return jnp.exp(-jax.lax.convert_element_type(lam, jnp.float64) * times)

    run = jax.vmap(lambda y: infer(wide, y, RATE, noise=0.05))
    for found in (
        infer(decay, observed(1.0), RATE, noise=0.05),
        infer(wide, observed(1.0), RATE, noise=0.05),
        jax.tree.map(lambda leaf: leaf[0], jax.jit(run)(observed(1.0)[None])),
    ):
        assert found.lam.dtype == found.weights.dtype == jnp.float32
        same(found, double, 1e-4, "lam")
        np.testing.assert_allclose(found.interval(), ends, rtol=1e-3)
    # A result in float64 can be used outside.
    np.testing.assert_allclose(double.interval(), ends, rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-25, 1e25])
@pytest.mark.parametrize("noise", [0.05, None])
def test_units_of_the_observations_change_nothing(unit, noise):
    y, given = observed(1.0), None if noise is None else noise * unit
    right = infer(decay, y, RATE, noise=noise)
    found = infer(lambda lam: unit * decay(lam), unit * y, RATE, noise=given)
    same(found, right, 1e-4, "lam")
    np.testing.assert_allclose(found.interval(), right.interval(), rtol=1e-3)
    np.testing.assert_allclose(found.noise / unit, right.noise, rtol=1e-4)


def test_many_observations_are_not_predicted_at_the_same_time():
    n, width = 20_000, 16

    def predict(lam):
        places = jnp.linspace(0, 1, n * width).reshape(n, -1)
        return jnp.sum(jnp.tanh(lam[0] * places), 1)

    run = jax.jit(lambda seen: infer(predict, seen, RATE, noise=0.1).lam)
    compiled = run.lower(jax.ShapeDtypeStruct((n,), jnp.float32)).compile()
    # At the same time, 500 samples would need 640 MB.
    assert compiled.memory_analysis().temp_size_in_bytes < 64e6


@pytest.mark.parametrize("size", [1, 3, 7, 8])
def test_blocks_leave_nothing_out(size):
    x = jnp.arange(14.0).reshape(7, 2)
    found = _in_blocks(lambda row: row[0] - 2 * row[1], x, size)
    np.testing.assert_array_equal(found, x[:, 0] - 2 * x[:, 1])


GAPS = np.isin(np.arange(20), (0, 7, 8, 19))


def with_gaps(lam):
    """Neither a number nor a derivative where there is no observation."""
    t = jnp.asarray(np.where(GAPS, np.nan, TIMES), lam.dtype)
    return jnp.exp(-lam * t)


@pytest.mark.parametrize("noise", [0.05, None])
def test_missing_observations_are_as_if_never_made(x64, noise):
    y = observed(1.0)
    right = infer(lambda lam: decay(lam)[~GAPS], y[~GAPS], RATE, noise=noise)
    nan, junk = np.where(GAPS, np.nan, y), np.where(GAPS, 1e300, y)
    ways = [(nan, noise), (np.ma.array(junk, mask=GAPS), noise)]
    if noise is not None:
        ways += [(junk, np.where(GAPS, np.inf, noise))]
        ways += [(junk, np.ma.array(np.full(20, noise), mask=GAPS))]
        ways += [(nan, np.where(GAPS, np.nan, noise))]
    compared = ("lam", "covariance", "samples", "weights", "noise")
    for seen, given in ways:
        found = infer(with_gaps, seen, RATE, noise=given)
        same(found, right, 1e-6, *compared[: 4 if noise else 5])


def test_many_cases_at_once_are_a_loop_over_them_each_with_its_gaps(x64):
    ys = np.stack([observed(rate, seed=i) for i, rate in enumerate((0.2, 1.0, 5.0))])
    ys = np.stack([*ys, np.where(GAPS, np.nan, ys[1]), np.full(20, np.nan)])
    whole = jax.jit(jax.vmap(lambda y: infer(decay, y, RATE)))(ys)
    ends = whole.interval(0.9)
    for i, y in enumerate(ys[:4]):
        one = infer(decay, y, RATE)
        found = jax.tree.map(lambda leaf, i=i: leaf[i], whole)
        same(found, one, 1e-9, "lam", "covariance", "noise", "effective_sample_size")
        np.testing.assert_allclose([e[i] for e in ends], one.interval(0.9), rtol=1e-9)
    # All missing: with the noise unknown nothing is said, and else the prior.
    assert np.isnan(whole.weights[4]).all()
    run = jax.jit(lambda y: infer(decay, y, RATE, noise=0.1))
    low, high = run(jnp.full(20, jnp.nan)).interval(0.8)
    np.testing.assert_allclose([low, high], [[10**-0.8], [10**0.8]], rtol=0.03)


def test_what_is_doubtful_is_told():
    for noise in (0.01, None):
        with pytest.warns(UserWarning) as told:
            infer(decay, observed(20.0, 0.01), RATE, noise=noise)
        (edge,) = (str(one.message) for one in told if "range" in str(one.message))
        assert "rate" in edge and "upper" in edge
    y = observed(1.0) + 0.5 * (-1) ** np.arange(20)
    with pytest.warns(UserWarning, match=r"observations.* (9\.\d|10|11) "):
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
    for run in (
        jax.jit(lambda y: infer(decay, y, RATE, noise=noise)),
        jax.jit(lambda _: infer(decay, y, RATE, noise=noise)),
    ):
        np.testing.assert_allclose(run(y).lam, [10], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"observations": TIMES[:3]}, "observations"),
        ({"observations": TIMES * np.inf}, "observations"),
        ({"observations": TIMES * np.nan}, "observations"),
        ({"predict": lambda lam: jax.lax.complex(decay(lam), decay(lam))}, "predict"),
        ({"box": Box(rate=(1, 1))}, "box"),
        ({"noise": np.full(20, np.inf)}, "noise"),
        ({"noise": np.append(np.full(19, 0.1), np.nan)}, "noise"),
        ({"noise": 0.0}, "noise"),
        ({"noise": [0.1, 0.2]}, "noise"),
        ({"noise": np.ones((2, 20))}, "noise"),
        # Not known, with no more observations than parameters.
        ({"noise": None, "observations": [*[np.nan] * 19, 1.0]}, "noise"),
    ],
)
def test_what_makes_no_sense_is_an_error(unchecked, change, name):
    good = {"predict": decay, "observations": observed(1.0), "box": RATE, "noise": 0.1}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        infer(**good | change)
