import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import AbstractPDE, Box
from hyperpinn_eqx.physics.sampling import chebyshev_nodes

uniform = eqx.filter_jit(hpx.uniform)
log_uniform = eqx.filter_jit(hpx.log_uniform)
spread = eqx.filter_jit(hpx.latin_hypercube)
conditions = eqx.filter_jit(hpx.conditions)
residual_adaptive = eqx.filter_jit(hpx.residual_adaptive)

BOX = Box(t=(0, 2), x=(-3, 1))
NU = Box(nu=(1e-3, 1e-1, "log"))


def distance_from_uniform(sample):
    """Kolmogorov's: how far the sample on [0, 1] is from the uniform distribution."""
    return np.max(np.abs(np.sort(sample) - np.linspace(0, 1, len(sample))))


@pytest.mark.parametrize("sampler", [uniform, log_uniform])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)], ids=str)
def test_samples_have_the_shape_and_lie_in_the_box(sampler, shape, getkey):
    box = Box(t=(0, 2), nu=(1e-3, 1e-1, "log"))
    points = sampler(box, shape, key=getkey())
    assert points.shape == (*shape, 2)
    for i in range(2):
        assert jnp.all(points[..., i] >= box.low[i] * (1 - 1e-6))
        assert jnp.all(points[..., i] <= box.high[i] * (1 + 1e-6))


def test_uniform_is_uniform_in_physical_units_even_on_log_axes(getkey):
    nu = uniform(NU, (4000,), key=getkey())[:, 0]
    assert distance_from_uniform((nu - 1e-3) / (1e-1 - 1e-3)) < 0.03


def test_log_uniform_is_uniform_in_the_logarithm(getkey):
    nu = log_uniform(NU, (4000,), key=getkey())[:, 0]
    assert distance_from_uniform((jnp.log10(nu) + 3) / 2) < 0.03


def test_axes_are_independent(getkey):
    points = uniform(BOX, (4000,), key=getkey())
    assert abs(np.corrcoef(np.asarray(points).T)[0, 1]) < 0.05


@pytest.mark.parametrize("n", [1, 8])
def test_spread_puts_one_point_into_each_nth_of_every_axis(n, getkey):
    box = Box(nu=(1e-3, 1e-1, "log"), a=(0, 5))
    scaled = np.asarray(box.scale(latin_hypercube(box, n, key=getkey())))
    cells = np.floor((scaled + 1) / 2 * n * (1 - 1e-5)).astype(int)
    np.testing.assert_array_equal(np.sort(cells, axis=0).T, [range(n), range(n)])


def test_spread_pairs_the_axes_at_random(getkey):
    points = latin_hypercube(Box(a=(0, 1), b=(0, 1)), 500, key=getkey())
    assert abs(np.corrcoef(np.asarray(points).T)[0, 1]) < 0.15


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


def test_interpolation_at_chebyshev_nodes_holds_at_the_ends(x64):
    # Runge's function, which equispaced nodes miss by far.
    def worst(nodes):
        t = np.linspace(-1, 1, 500)
        c = np.polynomial.chebyshev.chebfit(nodes, 1 / (1 + 25 * nodes**2), 20)
        values = np.polynomial.chebyshev.chebval(t, c)
        return np.max(np.abs(values - 1 / (1 + 25 * t**2)))

    nodes = np.asarray(chebyshev_nodes(Box(a=(-1, 1)), (21,)))[:, 0]
    assert worst(nodes) < 0.1 and worst(np.linspace(-1, 1, 21)) > 1


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_nodes_of_a_periodic_axis_are_equispaced_around_it(n, x64):
    box = Box(phi=(1, 5, "periodic"))
    nodes = np.asarray(chebyshev_nodes(box, (n,)))[:, 0]
    gaps = np.diff(nodes, append=nodes[0] + 4)
    np.testing.assert_allclose(gaps, np.full(n, 4 / n), rtol=1e-14)
    # The middle one, or both beside it, are where those of an interval are.
    np.testing.assert_allclose(nodes.mean(), 3, rtol=1e-14)


def test_means_over_nodes_of_a_periodic_axis_converge_as_fast_as_they_can(x64):
    box = Box(a=(0, 1), phi=(-np.pi, np.pi, "periodic"))
    points = np.asarray(chebyshev_nodes(box, (1, 20)))
    bessel = np.i0(1.0)  # the mean of exp(cos φ)
    np.testing.assert_allclose(np.exp(np.cos(points[:, 1])).mean(), bessel, rtol=1e-14)
    np.testing.assert_allclose(points[:, 0], np.full(20, 0.5), rtol=1e-15)


@pytest.mark.parametrize("counts", [(3,), (2, 2, 2)], ids=str)
def test_chebyshev_needs_a_count_for_each_axis(counts):
    with pytest.raises(ValueError, match="counts = .*expected 2"):
        chebyshev_nodes(BOX, counts)


@pytest.fixture
def plate(heat):
    class Plate(AbstractPDE):
        domain = Box(x=(-1, 1), y=(2, 3), t=(0.5, 2))
        parameters = heat.parameters
        derivatives = ("t",)

        def residual(self, u, tx, lam):
            return u.t

        def initial(self, tx, lam):
            return tx[0]

        def boundary(self, tx, lam):
            return tx[0]

    return Plate()


def test_initial_points_lie_at_the_first_time(plate, getkey):
    initial, _ = conditions(plate, 30, 1, key=getkey())
    assert initial.shape == (30, 3)
    assert jnp.all(initial[:, 2] == 0.5)
    assert jnp.ptp(initial[:, 0]) > 1 and jnp.ptp(initial[:, 1]) > 0.5


def test_boundary_points_lie_on_every_wall_at_any_time(plate, getkey):
    _, boundary = conditions(plate, 1, 200, key=getkey())
    on = boundary[:, [0, 0, 1, 1]] == jnp.array([[-1.0, 1.0, 2.0, 3.0]])
    assert jnp.all(jnp.any(on, axis=1))
    assert jnp.all(jnp.sum(on, axis=0) > 20)
    assert jnp.min(boundary[:, 2]) < 0.7 and jnp.max(boundary[:, 2]) > 1.8


def test_conditions_are_fifty_and_fifty_as_in_the_paper(heat, getkey):
    initial, boundary = conditions(heat, key=getkey())
    assert initial.shape == boundary.shape == (50, 2)


def test_a_steady_problem_has_no_initial_points(plate, getkey):
    steady = {"domain": Box(x=(-1, 1), y=(2, 3)), "derivatives": ("x",)}
    steady["initial"] = AbstractPDE.initial
    steady = type("Steady", (type(plate),), steady)()
    initial, boundary = conditions(steady, 5, 40, key=getkey())
    assert initial.shape == (0, 2)
    on = boundary[:, [0, 0, 1, 1]] == jnp.array([[-1.0, 1.0, 2.0, 3.0]])
    assert jnp.all(jnp.sum(on, axis=1) == 1)


def test_a_problem_in_time_alone_has_no_boundary_points(plate, getkey):
    decay = {"domain": Box(t=(1, 3)), "boundary": AbstractPDE.boundary}
    decay = type("Decay", (type(plate),), decay)()
    initial, boundary = conditions(decay, 5, 40, key=getkey())
    np.testing.assert_array_equal(initial, np.ones((5, 1)))
    assert boundary.shape == (0, 1)


def test_a_periodic_axis_has_no_walls(plate, getkey):
    channel = Box(x=(-1, 1, "periodic"), y=(2, 3), t=(0.5, 2))
    channel = type("Channel", (type(plate),), {"domain": channel})()
    initial, boundary = conditions(channel, 30, 200, key=getkey())
    assert jnp.all(initial[:, 2] == 0.5) and jnp.ptp(initial[:, 0]) > 1
    on = boundary[:, [1, 1]] == jnp.array([[2.0, 3.0]])
    assert jnp.all(jnp.sum(on, axis=1) == 1) and jnp.all(jnp.sum(on, axis=0) > 60)
    assert not jnp.any(jnp.abs(boundary[:, 0]) == 1)


def test_a_ring_has_no_boundary_points(plate, getkey):
    ring = {"domain": Box(t=(1, 3), x=(-1, 1, "periodic"))}
    ring["boundary"] = AbstractPDE.boundary
    ring = type("Ring", (type(plate),), ring)()
    initial, boundary = conditions(ring, 5, 40, key=getkey())
    assert initial.shape == (5, 2) and boundary.shape == (0, 2)


def test_a_periodic_time_has_no_beginning(plate, getkey):
    none = {name: getattr(AbstractPDE, name) for name in ("initial", "boundary")}
    orbit = {"domain": Box(t=(1, 3, "periodic"), x=(-1, 1, "periodic")), **none}
    orbit = type("Orbit", (type(plate),), orbit)()
    assert [len(p) for p in conditions(orbit, 5, 40, key=getkey())] == [0, 0]


@pytest.mark.parametrize("low", [0.0, 1.0, 1e3, -2.0])
def test_uniform_points_are_inside(low, monkeypatch, getkey):
    # As if the generator had drawn its least and its largest number.
    ends = jnp.array([[-1.0], [1.0]])
    monkeypatch.setattr(jax.random, "uniform", lambda *args, **options: ends)
    points = uniform(Box(x=(low, low + 2)), (2,), key=getkey())
    assert jnp.all((points > low) & (points < low + 2))
    assert jnp.all(jnp.isfinite(1 / (points - low)))


def test_adaptive_points_follow_the_residual(getkey):
    # |r| is 9 on one tenth of the box and 0 elsewhere, so that the probability there
    # is proportional to 9 / 0.9 + 1 = 11 against 1, and its share is 11 / 20.
    points = residual_adaptive(
        lambda p: jnp.where(p[:, 0] < 0.2, -9.0, 0.0), BOX, 400, key=getkey()
    )
    share = jnp.mean(points[:, 0] < 0.2)
    # A little less, for without replacement there are too few of them.
    assert 0.4 < share < 0.6


def test_adaptive_points_are_all_different(getkey):
    points = residual_adaptive(
        lambda p: jnp.exp(9 * p[:, 1]), BOX, 64, candidates=100, key=getkey()
    )
    assert points.shape == (64, 2)
    assert len(np.unique(points, axis=0)) == 64


def test_all_candidates_may_be_drawn(getkey):
    points = residual_adaptive(lambda p: p[:, 0], BOX, 16, candidates=16, key=getkey())
    assert points.shape == (16, 2)


def test_more_points_than_candidates_is_an_error(getkey):
    with pytest.raises(ValueError, match="n = 17, expected at most candidates = 16"):
        residual_adaptive(lambda p: p[:, 0], BOX, 17, candidates=16, key=getkey())


def test_adaptive_points_of_an_exact_solution_are_uniform(getkey):
    points = residual_adaptive(lambda p: 0 * p[:, 0], BOX, 2000, key=getkey())
    assert distance_from_uniform(points[:, 0] / 2) < 0.05


@pytest.mark.parametrize(
    "sampler",
    [
        lambda key: uniform(BOX, (5,), key=key),
        lambda key: log_uniform(BOX, (5,), key=key),
        lambda key: latin_hypercube(BOX, 5, key=key),
        lambda key: residual_adaptive(
            lambda p: p[:, 0], BOX, 5, candidates=16, key=key
        ),
    ],
    ids=["uniform", "log_uniform", "spread", "residual_adaptive"],
)
def test_the_key_decides_everything(sampler):
    first, again, other = (sampler(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert jnp.all(jnp.any(first != other, axis=1))


def test_samples_come_in_the_default_precision(x64, heat, getkey):
    assert uniform(BOX, (2,), key=getkey()).dtype == jnp.float64
    assert latin_hypercube(BOX, 2, key=getkey()).dtype == jnp.float64
    for points in conditions(heat, 2, 2, key=getkey()):
        assert points.dtype == jnp.float64


def test_no_points_are_no_error(heat, getkey):
    assert uniform(BOX, (0, 3), key=getkey()).shape == (0, 3, 2)
    assert latin_hypercube(BOX, 0, key=getkey()).shape == (0, 2)
    initial, boundary = conditions(heat, 0, 0, key=getkey())
    assert initial.shape == boundary.shape == (0, 2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda p: p[:3, 0], r"size\(points\) has shape \(3,\), expected \(16,\)"),
        (lambda p: p, r"size\(points\) has shape \(16, 2\), expected \(16,\)"),
        (lambda p: jnp.where(p[:, 0] > 1, jnp.nan, 1), r"size\(points\) holds nan at"),
        (lambda p: None, r"size\(points\) = None, expected an array of real numbers"),
    ],
)
def test_a_residual_must_be_one_finite_number_a_point(wrong, said, getkey, unchecked):
    with pytest.raises(ValueError, match=said):
        hpx.residual_adaptive(wrong, BOX, 4, candidates=16, key=getkey())


BATCH = {
    "lam": np.ones((2, 1)),
    "points": np.ones((2, 3, 2)),
    "initial": np.ones((4, 2)),
    "boundary": np.ones((5, 2)),
}


def test_a_batch_takes_lists_and_integers_and_no_conditions(unchecked):
    whole = {name: a.astype(int).tolist() for name, a in BATCH.items()}
    batch = hpx.Batch(**whole | {"initial": jnp.ones((0, 2))})
    for name, a in BATCH.items():
        assert getattr(batch, name).dtype == jnp.float32
        assert getattr(batch, name).shape == (a.shape if name != "initial" else (0, 2))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lam", np.ones((3, 1)), r"have shapes \(3, 1\), \(2, 3, 2\), .*\(M, p\)"),
        ("boundary", np.ones((5, 3)), r"\(5, 3\), expected .*\(B, d\)"),
        ("points", [[[0, np.inf]], [[0, 1]]], r"points holds inf at \(0, 0, 1\)"),
    ],
)
def test_a_batch_that_does_not_fit_together_is_an_error(name, value, said, unchecked):
    with pytest.raises(ValueError, match=said):
        hpx.Batch(**BATCH | {name: value})


def test_junk_for_batches(throw_junk_at):
    throw_junk_at(hpx.Batch, **BATCH)
