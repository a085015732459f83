import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, chebyshev_nodes
from hyperpinn_eqx.box import lattice
from hyperpinn_eqx.physics.sampling import condition_points
from hyperpinn_eqx.problems.conditions import Where

uniform = eqx.filter_jit(hpx.uniform)
log_uniform = eqx.filter_jit(hpx.log_uniform)
latin_hypercube = eqx.filter_jit(hpx.latin_hypercube)
residual_adaptive = eqx.filter_jit(hpx.residual_adaptive)

BOX = Box(t=(0, 2), x=(-3, 1))
NU = Box(nu=(1e-3, 1e-1, "log"))


def distance_from_uniform(sample):
    """Kolmogorov's: how far the sample on [0, 1] is from the uniform distribution."""
    return np.max(np.abs(np.sort(sample) - np.linspace(0, 1, len(sample))))


@pytest.mark.parametrize("sampler", [uniform, log_uniform])
@pytest.mark.parametrize("shape", [(), 5, (3, 4), (0, 3)], ids=str)
def test_samples_have_the_shape_and_lie_in_the_box(sampler, shape, getkey):
    box = Box(t=(0, 2), nu=(1e-3, 1e-1, "log"))
    points = np.asarray(sampler(box, shape, key=getkey()))
    assert points.shape == (*np.empty(shape).shape, 2)
    assert np.all(points >= np.array([0, 1e-3]) * (1 - 1e-6))
    assert np.all(points <= np.array([2, 1e-1]) * (1 + 1e-6))


def test_uniform_and_log_uniform_are_what_they_say_on_log_axes(getkey):
    nu = uniform(NU, 4000, key=getkey())[:, 0]
    assert distance_from_uniform((nu - 1e-3) / (1e-1 - 1e-3)) < 0.03
    nu = log_uniform(NU, 4000, key=getkey())[:, 0]
    assert distance_from_uniform((jnp.log10(nu) + 3) / 2) < 0.03


@pytest.mark.parametrize("low", [0.0, 1.0, 1e3, -2.0])
def test_uniform_points_are_inside(low, monkeypatch, getkey):
    # As if the generator had drawn its least and its largest number.
    ends = jnp.array([[-1.0], [1.0]])
    monkeypatch.setattr(jax.random, "uniform", lambda *args, **options: ends)
    points = hpx.uniform(Box(x=(low, low + 2)), 2, key=getkey())
    assert jnp.all((points > low) & (points < low + 2))
    assert jnp.all(jnp.isfinite(1 / (points - low)))


@pytest.mark.parametrize("n", [1, 8])
def test_a_latin_hypercube_has_one_point_in_each_nth_of_every_axis(n, getkey):
    box = Box(nu=(1e-3, 1e-1, "log"), a=(0, 5))
    scaled = np.asarray(box.scale(latin_hypercube(box, n, key=getkey())))
    cells = np.floor((scaled + 1) / 2 * n * (1 - 1e-5)).astype(int)
    np.testing.assert_array_equal(np.sort(cells, axis=0).T, [range(n), range(n)])
    assert latin_hypercube(box, 0, key=getkey()).shape == (0, 2)


def test_axes_are_independent(getkey):
    for points in (
        uniform(BOX, 4000, key=getkey()),
        latin_hypercube(BOX, 4000, key=getkey()),
    ):
        assert abs(np.corrcoef(np.asarray(points).T)[0, 1]) < 0.05


def test_the_lattice_is_even():
    for d in (1, 2, 3):
        points = lattice(1000, d)
        assert points.shape == (1000, d)
        # Of independent points, one box in three would be off by more than 0.015.
        for corner in np.random.default_rng(5).uniform(size=(50, d)):
            inside = np.all(points < corner, axis=1).mean()
            assert abs(inside - corner.prod()) < 0.015


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_chebyshev_nodes_are_the_roots_of_their_polynomial(n, x64):
    nodes = np.asarray(chebyshev_nodes(Box(a=(-1, 1)), (n,)))[:, 0]
    polynomial = np.polynomial.chebyshev.Chebyshev.basis(n)
    np.testing.assert_allclose(polynomial(nodes), np.zeros(n), atol=1e-13)
    assert len(nodes) == n and np.all(np.diff(nodes) > 0)


def test_chebyshev_nodes_are_those_of_scaled_units(x64):
    box = Box(nu=(1e-3, 1e-1, "log"), fixed=(10, 10), a=(0, 5))
    points = chebyshev_nodes(box, (4, 1, 3))
    assert points.shape == (12, 3) and points.dtype == jnp.float64
    np.testing.assert_allclose(points[:, 1], np.full(12, 10.0), rtol=1e-15)
    log, a = np.unique(np.round(box.scale(points)[:, [0, 2]], 12), axis=0).T
    assert len(log) == 12  # all combinations
    four, three = (np.sort(np.cos(np.pi * (np.arange(n) + 0.5) / n)) for n in (4, 3))
    np.testing.assert_allclose(log, np.repeat(four, 3), atol=1e-12)
    np.testing.assert_allclose(a, np.tile(three, 4), atol=1e-12)
    for counts in ((3, 1), (2, 2, 2, 2)):
        with pytest.raises(ValueError, match="counts"):
            chebyshev_nodes(box, counts)


def test_interpolation_at_chebyshev_nodes_holds_at_the_ends(x64):
    # Runge's function, which equispaced nodes miss by far.
    def worst(nodes):
        t = np.linspace(-1, 1, 500)
        c = np.polynomial.chebyshev.chebfit(nodes, 1 / (1 + 25 * nodes**2), 20)
        values = np.polynomial.chebyshev.chebval(t, c)
        return np.max(np.abs(values - 1 / (1 + 25 * t**2)))

    nodes = np.asarray(chebyshev_nodes(Box(a=(-1, 1)), (21,)))[:, 0]
    assert worst(nodes) < 0.1 and worst(np.linspace(-1, 1, 21)) > 1


def test_nodes_of_a_periodic_axis_are_equispaced_around_it(x64):
    for n in (1, 2, 5, 8):
        nodes = np.asarray(chebyshev_nodes(Box(phi=(1, 5, "periodic")), (n,)))[:, 0]
        gaps = np.diff(nodes, append=nodes[0] + 4)
        np.testing.assert_allclose(gaps, np.full(n, 4 / n), rtol=1e-14)
        # The middle one, or both beside it, are where those of an interval are.
        np.testing.assert_allclose(nodes.mean(), 3, rtol=1e-14)
    # Means converge as fast as they can: of exp(cos φ), to a Bessel function.
    box = Box(a=(0, 1), phi=(-np.pi, np.pi, "periodic"))
    a, phi = np.asarray(chebyshev_nodes(box, (1, 20))).T
    np.testing.assert_allclose(np.exp(np.cos(phi)).mean(), np.i0(1.0), rtol=1e-14)
    np.testing.assert_allclose(a, np.full(20, 0.5), rtol=1e-15)


def test_adaptive_points_follow_the_residual(getkey):
    # |r| is 9 on one tenth of the box and 0 elsewhere, so that the probability there
    # is proportional to 9 / 0.9 + 1 = 11 against 1, and its share is 11 / 20.
    points = residual_adaptive(
        lambda p: jnp.where(p[:, 0] < 0.2, -9.0, 0.0), BOX, 400, key=getkey()
    )
    share = jnp.mean(points[:, 0] < 0.2)
    # A little less, for without replacement there are too few of them.
    assert 0.4 < share < 0.6
    # Of an exact solution they are uniform.
    points = residual_adaptive(lambda p: 0 * p[:, 0], BOX, 2000, key=getkey())
    assert distance_from_uniform(points[:, 0] / 2) < 0.05


@pytest.mark.parametrize("n", [64, 100])
def test_adaptive_points_are_all_different(n, getkey):
    steep = lambda p: jnp.exp(9 * p[:, 1])  # noqa: E731
    points = residual_adaptive(steep, BOX, n, candidates=100, key=getkey())
    assert points.shape == (n, 2) and len(np.unique(points, axis=0)) == n
    with pytest.raises(ValueError, match="101.*100"):
        residual_adaptive(steep, BOX, 101, candidates=100, key=getkey())


@pytest.mark.parametrize(
    "wrong", [lambda p: p[:3, 0], lambda p: p, lambda p: p[:, 0] * jnp.nan]
)
def test_a_residual_must_be_one_finite_number_a_point(wrong, getkey, unchecked):
    with pytest.raises(ValueError, match="residual"):
        hpx.residual_adaptive(wrong, BOX, 4, candidates=16, key=getkey())


@pytest.mark.parametrize(
    "sampler",
    [
        lambda key: uniform(BOX, 5, key=key),
        lambda key: log_uniform(BOX, 5, key=key),
        lambda key: latin_hypercube(BOX, 5, key=key),
        lambda key: residual_adaptive(
            lambda p: p[:, 0], BOX, 5, candidates=16, key=key
        ),
        lambda key: condition_points(BOX, Where((("t", 0.0),)), 5, key=key).point[
            :, 1:
        ],
    ],
    ids=["uniform", "log_uniform", "latin_hypercube", "residual_adaptive", "start"],
)
def test_the_key_decides_everything_in_the_default_precision(sampler):
    first, again, other = (sampler(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert jnp.all(jnp.any(first != other, axis=1))
    with jax.enable_x64(True):
        assert sampler(jax.random.key(1)).dtype == jnp.float64
