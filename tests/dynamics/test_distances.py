import numpy as np
import pytest

from hyperpinn_eqx.dynamics.distances import occupancy_divergence, spectrum_distance


def cloud(shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(shift, 1, (4000, 2))


def test_occupancies_diverge_more_the_further_apart_they_are():
    assert occupancy_divergence(cloud(), cloud()) == 0
    # Neither the order of states nor their number matters.
    twice = np.concatenate([cloud()[::-1], cloud()])
    assert abs(occupancy_divergence(twice, cloud())) < 1e-6
    shifts = (0, 0.5, 2, 100.0)
    found = [occupancy_divergence(cloud(s, 1), cloud(), bins=8) for s in shifts]
    assert 0 < found[0] < 0.1 < found[1] < found[2] < found[3] < np.inf


def test_occupancy_divergence_is_kullback_and_leiblers():
    # Two cells: halves against a quarter and three quarters.
    true = np.array([[0.0], [0.1], [0.9], [1.0]])
    found = np.array([[0.2], [0.7], [0.8], [1.0]])
    expected = np.log(2) / 2 + np.log(2 / 3) / 2
    divergence = occupancy_divergence(found, true, bins=2)
    np.testing.assert_allclose(divergence, expected, rtol=1e-4)


def test_states_out_of_the_true_range_share_one_cell():
    true = np.linspace(0, 1, 50)[:, None]
    near, far = true.copy(), true.copy()
    near[::2] += 2
    far[::2] -= 1e3
    assert occupancy_divergence(near, true) == occupancy_divergence(far, true) > 0.5


def wave(frequency, phase=0.0, size=1.0):
    t = frequency * np.linspace(0, 100, 2000) + phase
    return size * np.stack([np.sin(t), np.cos(t)], axis=1)


def test_spectra_are_further_apart_the_more_frequencies_differ():
    assert spectrum_distance(wave(2.0), wave(2.0)) < 1e-7
    # Neither do phase, size and mean matter.
    assert spectrum_distance(5 + wave(2.0, 1.0, 7.0), wave(2.0)) < 0.02
    near, far, apart = (spectrum_distance(wave(f), wave(2.0)) for f in (2.1, 2.4, 20.0))
    assert 0 < near < far < 0.9 < apart <= 1
    # Smoother spectra are closer.
    close, sharp = (
        spectrum_distance(wave(2.0), wave(2.4), smoothing=s) for s in (20.0, 2.0)
    )
    assert close < sharp


def test_a_tiny_smoothing_is_none_and_the_distance_symmetric():
    found, true = np.random.default_rng(1).normal(size=(2, 64, 1))
    p, q = (np.abs(np.fft.rfft(x - x.mean(), axis=0)) ** 2 for x in (found, true))
    overlap = np.sum(np.sqrt(p / p.sum() * q / q.sum()))
    for pair in ((found, true), (true, found)):
        distance = spectrum_distance(*pair, smoothing=0.01)
        np.testing.assert_allclose(distance, np.sqrt(1 - overlap), rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_a_run_that_failed_is_as_far_away_as_can_be(bad):
    true, found = cloud(), cloud()
    found[2000:] = bad
    assert spectrum_distance(found, true) == 1.0
    # Half of it lies outside, as if it were anywhere else.
    away = found.copy()
    away[2000:] = 100.0
    assert occupancy_divergence(found, true) == occupancy_divergence(away, true) > 0


def test_too_many_cells_or_too_much_smoothing_is_an_error():
    states = np.ones((99, 2))
    with pytest.raises(ValueError, match="bins = 100000"):
        occupancy_divergence(states, states, bins=10**5)
    with pytest.raises(ValueError, match="smoothing = 6.3"):
        spectrum_distance(states, states, smoothing=6.3)
