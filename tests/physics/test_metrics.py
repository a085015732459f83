import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Burgers, FamilyError, family_error
from hyperpinn_eqx.physics import metrics
from hyperpinn_eqx.physics.metrics import EvaluationSet, physical


class Decay(hpx.AbstractPDE):
    """A user's family on a domain of its own, whose solution is written in JAX."""

    domain = hpx.Box(t=(0, 2), x=(1, 4))
    parameters = hpx.Box(k=(0.5, 2.0, "log"))

    def residual(self, u, tx, lam):
        return u.t + lam * u.value

    def exact(self, t, x, lam):
        return x * jnp.exp(-lam * t)


class Product(Decay):
    """In three coordinates, and of two parameters."""

    domain = hpx.Box(y=(-1, 2), t=(1, 3), x=(0, 1, "periodic"))
    parameters = hpx.Box(b=(1, 4, "log"), a=(2, 5, "periodic"))

    def exact(self, y, t, x, lam):
        return y * lam[0] + t * lam[1] + 0 * x


class Steady(Decay):
    """In one coordinate, which is not time."""

    domain = hpx.Box(x=(0, 1))
    parameters = hpx.Box(k=(0, 3))

    def exact(self, x, lam):
        return lam * x


def ones(problem):
    """A model that is 1 everywhere."""
    main = hpx.MainNetSpec((len(problem.domain), 1), problem.domain)
    key = jax.random.key(0)
    model = eqx.filter_jit(hpx.ConcatPINN)(main, problem.parameters, key=key)
    model = jax.tree.map(jnp.zeros_like, model)
    return eqx.tree_at(lambda m: m.net.biases[0], model, jnp.ones(1))


def measured(exact, problem=Decay, **options):
    """The error of 1, where a family has this exact solution."""
    changed = type("Changed", (problem,), {"exact": exact})()
    return family_error(
        ones(changed), changed, **{"n_lam": 2, "n_t": 3, "n_x": 4} | options
    )


@pytest.fixture
def family(getkey):
    """An untrained family for Burgers' equation."""
    main = hpx.MainNetSpec((2, 3, 1), Burgers.domain)
    return eqx.filter_jit(hpx.HyperPINN)(main, Burgers.parameters, (3,), key=getkey())


def assert_errors(found, i, difference, u):
    np.testing.assert_allclose(found.mse[i], np.mean(difference**2), rtol=1e-12)
    relative = np.sqrt(np.sum(difference**2) / np.sum(u**2))
    np.testing.assert_allclose(found.relative_l2[i], relative, rtol=1e-12)


def test_it_is_a_loop_over_the_grid_in_float64_whatever_the_mode(family):
    found = family_error(family, Burgers(), n_lam=3, n_t=4, n_x=5)
    assert jnp.zeros(()).dtype == jnp.float32
    np.testing.assert_array_equal(found.lam, np.linspace(0.001, 0.1, 3))
    with jax.enable_x64(True):
        inside = family_error(family, Burgers(), n_lam=3, n_t=4, n_x=5)
        np.testing.assert_allclose(inside.mse, found.mse, rtol=1e-14)
        wide = hpx.cast(family, jnp.float64)
        t, x = np.meshgrid(np.linspace(0, 1, 4), np.linspace(-1, 1, 5))
        points = jnp.stack([t, x], axis=-1).reshape(-1, 2)
        for i, nu in enumerate(found.lam):
            u = Burgers().exact(t, x, nu).ravel()
            assert_errors(found, i, jax.vmap(wide(nu))(points) - u, u)


def test_it_takes_a_users_family_and_chosen_parameters():
    lams = np.array([0.7, 1.9])
    found = family_error(ones(Decay()), Decay(), n_t=3, n_x=4, lams=lams)
    np.testing.assert_array_equal(found.lam, lams)
    for i, k in enumerate(lams):
        u = np.linspace(1, 4, 4) * np.exp(-k * np.array([[0], [1], [2]]))
        assert_errors(found, i, 1 - u, u)


def test_three_coordinates_and_two_parameters_or_no_time():
    problem, lams = Product(), np.array([[1.5, 2.5], [4.0, -7.0]])
    found = family_error(ones(problem), problem, lams=lams, n_t=3, n_x=4)
    np.testing.assert_array_equal(found.lam, lams)
    y, t = np.meshgrid(np.linspace(-1, 2, 4), np.linspace(1, 3, 3))
    for i, (b, a) in enumerate(lams):
        assert_errors(found, i, 1 - (b * y + a * t), b * y + a * t)
    found = family_error(ones(Steady()), Steady(), n_lam=4, n_t=2, n_x=5)
    np.testing.assert_allclose(found.lam, range(4), rtol=1e-15)
    assert_errors(found, 2, 1 - 2 * np.linspace(0, 1, 5), 2 * np.linspace(0, 1, 5))


def test_a_system_is_measured_field_by_field(getkey, x64):
    problem = hpx.Kovasznay()
    main = hpx.MainNetSpec((2, 4, 3), problem.domain)
    model = eqx.filter_jit(hpx.HyperPINN)(main, problem.parameters, (3,), key=getkey())
    lams = np.array([25.0, 80.0])
    found = family_error(model, problem, lams=lams, n_x=5)
    assert [*found.fields] == ["u", "v", "p"]
    x, y = np.meshgrid(np.linspace(-0.5, 1, 5), np.linspace(-0.5, 1.5, 5))
    points = jnp.stack([x, y], axis=-1).reshape(-1, 2)
    for i, Re in enumerate(lams):
        values = jax.vmap(model(Re))(points).T
        for j, u in enumerate(problem.exact(x, y, Re)):
            one = [*found.fields.values()][j]
            assert_errors(one, i, values[j] - u.ravel(), u)
    every = [*found.fields.values()]
    mse, l2 = ([getattr(e, n) for e in every] for n in ("mse", "relative_l2"))
    np.testing.assert_allclose(found.mse, np.mean(mse, axis=0), rtol=1e-14)
    rms = np.sqrt(np.mean(np.square(l2), axis=0))
    np.testing.assert_allclose(found.relative_l2, rms, rtol=1e-14)
    np.testing.assert_array_equal(found.lam, lams)
    assert not every[0].fields and found.mean == np.mean(found.mse)


def test_a_system_has_as_many_fields_as_its_solution_and_its_network(getkey):
    class Less(hpx.Kovasznay):
        def exact(self, x, y, lam):
            return super().exact(x, y, lam)[:2]

    with pytest.raises(ValueError, match="exact.* 2 fields"):
        family_error(ones(Less()), Less(), n_lam=2, n_x=3)
    with pytest.raises(ValueError, match="model"):
        family_error(ones(hpx.Kovasznay()), hpx.Kovasznay(), n_lam=2, n_x=3)


def test_several_parameters_are_spread_over_their_range():
    problem = Product()
    found = family_error(ones(problem), problem, n_lam=6, n_t=3, n_x=4)
    assert found.lam.shape == (6, 2) and found.mse.shape == (6,)
    with jax.enable_x64(True):
        scaled = np.asarray(problem.parameters.scale(jnp.asarray(found.lam)))
    cells = np.sort(np.floor((scaled + 1) * 3), axis=0)
    np.testing.assert_array_equal(cells.T, [range(6), range(6)])


@pytest.mark.parametrize(
    ("problem", "shapes"),
    [
        (Steady, [(256,)]),
        (Decay, [(101, 1), (1, 256)]),
        (Product, [(32, 1, 1), (1, 101, 1), (1, 1, 32)]),
    ],
)
def test_the_grid_is_finer_along_a_single_coordinate(problem, shapes):
    seen = []

    def exact(self, *coordinates_and_lam):
        seen.append([np.shape(c) for c in coordinates_and_lam[:-1]])
        return 1.0

    lams = np.ones(1 if problem is not Product else (1, 2))
    assert measured(exact, problem, lams=lams, n_t=101, n_x=None).mean == 0
    assert seen == [shapes]


def test_solutions_that_are_zero_constant_or_not_there():
    def fills_the_grid(self, t, x, lam):
        return x

    expected = np.mean((1 - np.arange(1, 5.0)) ** 2)
    np.testing.assert_allclose(measured(fills_the_grid).mse, expected, rtol=1e-14)
    zero = measured(lambda self, t, x, lam: 0 * x)
    np.testing.assert_array_equal(zero.relative_l2, [np.inf, np.inf])
    for exact, said in (
        (lambda self, t, x, lam: np.ones(3), r"\(3,\).*\(3, 4\)"),
        (lambda self, t, x, lam: np.where(x > 3, np.nan, 1.0) + 0 * t, r"\(0, 3\)"),
        (lambda self, t, x, lam: "no idea", "exact"),
        (None, "Changed"),
    ):
        with pytest.raises(ValueError, match=said):
            measured(exact)


def test_all_parameters_together_weigh_by_their_solutions():
    # The errors and the solutions as two long vectors.
    lams = np.array([0.5, 1.0, 2.0])
    found = measured(lambda self, t, x, lam: lam * x + 0 * t, lams=lams)
    u = np.outer(lams, np.arange(1, 5.0))
    expected = np.linalg.norm(1 - u) / np.linalg.norm(u)
    np.testing.assert_allclose(found.pooled, expected, rtol=1e-14)
    half = measured(lambda self, t, x, lam: 2.0 + 0 * x, lams=lams)
    both = FamilyError.of_fields({"u": found, "v": half})
    np.testing.assert_allclose(both.pooled**2, (expected**2 + 0.25) / 2, rtol=1e-14)


def test_the_mean_is_over_the_family_and_nan_where_the_model_is(family):
    error = FamilyError(np.ones((2, 2)), np.array([1.0, 3.0]), np.ones(2))
    assert error.lam.shape == (2, 2) and error.mean == 2
    broken = eqx.tree_at(lambda m: m.theta0, family, family.theta0 * jnp.nan)
    error = family_error(broken, Burgers(), n_lam=2, n_t=3, n_x=4)
    assert np.all(np.isnan(error.mse)) and np.isnan(error.mean)


def test_many_models_are_measured_by_one_exact_solution():
    seen = []

    class Counted(Decay):
        def exact(self, t, x, lam):
            seen.append(lam)
            return 0 * t + x * lam

    size = {"n_t": 3, "n_x": 4, "lams": np.array([0.5, 1.0])}
    points, constant = EvaluationSet(Counted(), **size), ones(Counted())
    for model in (constant, hpx.cast(constant, jnp.bfloat16)):
        found = points.error(model).mse
        assert seen == [0.5, 1.0]
    np.testing.assert_array_equal(found, family_error(model, Counted(), **size).mse)


def test_parameters_are_checked_by_their_range(unchecked):
    box = Product()
    found = physical("lam", [1, -3], box)
    assert found.dtype == np.float64 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, [1, -3])
    assert physical("lam", np.ones((2, 4), "f")[:, ::2], box, "M").shape == (2, 2)
    # A range with zero in it may be left.
    assert physical("lam", -1, Steady()) == -1
    for value, problem, *axes in (
        ([0.0, 3], box),
        ([1, 3], box, "M"),
        ([1.0], Steady()),
        (-1.0, Decay()),
    ):
        with pytest.raises(ValueError, match="value"):
            physical("value", value, problem, *axes)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_grid_has_an_axis_for_each_coordinate(d, x64, getkey):
    axes = [np.linspace(0, 1, 3), np.array([0.25]), np.linspace(-1, 0, 4)][:d]
    domain = hpx.Box(**dict.fromkeys("xyz"[:d], (-1, 1)))
    net = eqx.filter_jit(hpx.MainNetSpec((d, 4, 1), domain).init)(key=getkey())
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)
    expected = jax.vmap(net)(jnp.asarray(points)).reshape((3, 1, 4)[:d])
    # In the network's precision, whatever the mode.
    for u in (net, net.__call__):
        with jax.enable_x64(False):
            found = hpx.on_grid(u, *axes)
        assert found.dtype == np.float64
        rtol = 1e-12 if u is net else 1e-6
        np.testing.assert_allclose(found, expected, rtol=rtol)


def test_a_fine_grid_is_evaluated_in_blocks(monkeypatch):
    sizes = []

    def u(p):
        jax.debug.callback(lambda p: sizes.append(1), p)
        return p[0] + 10 * p[1]

    monkeypatch.setattr(metrics, "_AT_ONCE", 5)
    found = hpx.on_grid(u, np.arange(4.0), np.arange(3.0))
    np.testing.assert_array_equal(found, np.arange(4)[:, None] + 10 * np.arange(3))
    jax.effects_barrier()
    # Twelve points in three blocks of four.
    assert sizes == 12 * [1]
    found = hpx.on_grid(lambda p: p[0], np.arange(11.0))
    np.testing.assert_array_equal(found, np.arange(11))


def test_several_outputs_are_the_last_axis_of_a_grid():
    found = hpx.on_grid(lambda tx: tx, np.array([0.0, 1.0]), np.array([2.0]))
    np.testing.assert_array_equal(found, [[[0, 2]], [[1, 2]]])
    with pytest.raises(ValueError, match="axes"):
        hpx.on_grid(jnp.sum)
