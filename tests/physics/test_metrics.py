import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Burgers, FamilyError, family_error
from hyperpinn_eqx.physics import metrics
from hyperpinn_eqx.physics.metrics import EvaluationSet, physical


@pytest.fixture
def family(getkey):
    """An untrained family for Burgers' equation."""
    problem = Burgers()
    main = hpx.MainNetSpec((2, 3, 1), problem.domain)
    return eqx.filter_jit(hpx.HyperPINN)(main, problem.parameters, (3,), key=getkey())


@pytest.fixture
def zero(family):
    """A family of networks that are zero everywhere."""
    return jax.tree.map(jnp.zeros_like, family)


def test_it_is_a_loop_over_the_grid(family):
    found = family_error(family, Burgers(), n_lam=3, n_t=4, n_x=5)
    lams = np.linspace(0.001, 0.1, 3)
    np.testing.assert_array_equal(found.lam, lams)
    with jax.enable_x64(True):
        wide = hpx.cast(family, jnp.float64)
        for i, nu in enumerate(lams):
            net = eqx.filter_jit(wide(nu))
            t, x = np.meshgrid(np.linspace(0, 1, 4), np.linspace(-1, 1, 5))
            u = Burgers().exact(t, x, nu)
            points = np.stack([t, x], axis=-1).reshape(-1, 2)
            e = np.array([net(jnp.asarray(p)) for p in points]) - u.ravel()
            np.testing.assert_allclose(found.mse[i], np.mean(e**2), rtol=1e-12)
            relative = np.sqrt(np.sum(e**2) / np.sum(u**2))
            np.testing.assert_allclose(found.relative_l2[i], relative, rtol=1e-12)


def test_the_relative_error_of_zero_is_one(zero):
    error = family_error(zero, Burgers(), n_lam=2, n_t=3, n_x=4)
    np.testing.assert_allclose(error.relative_l2, 1, rtol=1e-14)


def test_a_model_that_is_right_has_no_error(zero):
    # An equation that zero solves, with Burgers' domain.
    class Calm(Burgers):
        def exact(self, t, x, nu):
            return 1e-30 + np.zeros(np.broadcast_shapes(np.shape(t), np.shape(x)))

    assert family_error(zero, Calm(), n_lam=2, n_t=3, n_x=4).mean < 1e-50


def test_errors_may_be_of_several_parameters():
    error = FamilyError(np.ones((3, 2)), np.arange(3.0), np.ones(3))
    assert error.lam.shape == (3, 2) and error.mean == 1


def test_the_mean_is_over_the_family():
    error = FamilyError(np.array([0.1, 0.2]), np.array([1.0, 3.0]), np.ones(2))
    assert error.mean == 2


def test_it_measures_in_float64_and_leaves_the_mode_alone(family, x64):
    inside = family_error(family, Burgers(), n_lam=2, n_t=3, n_x=4)
    with jax.enable_x64(False):
        outside = family_error(family, Burgers(), n_lam=2, n_t=3, n_x=4)
        assert jnp.zeros(()).dtype == jnp.float32
    np.testing.assert_allclose(inside.mse, outside.mse, rtol=1e-14)


class Decay(hpx.AbstractPDE):
    """A user's family on a domain of its own, whose solution is written in JAX."""

    domain = hpx.Box(t=(0, 2), x=(1, 4))
    parameters = hpx.Box(k=(0.5, 2.0, "log"))
    derivatives = ("t",)

    def residual(self, u, tx, lam):
        return u.t + lam * u.value

    def initial(self, tx, lam):
        return tx[1]

    def boundary(self, tx, lam):
        return self.exact(tx[0], tx[1], lam)

    def exact(self, t, x, lam):
        return x * jnp.exp(-lam * t)


@pytest.fixture
def constant(getkey):
    """A family of networks that are 1 everywhere, for `Decay`."""
    main = hpx.MainNetSpec((2, 1), Decay.domain)
    model = eqx.filter_jit(hpx.ConcatPINN)(main, Decay.parameters, key=getkey())
    model = jax.tree.map(jnp.zeros_like, model)
    return eqx.tree_at(lambda m: m.net.biases[0], model, jnp.ones(1))


def test_it_takes_a_users_family_and_chosen_parameters(constant):
    lams = np.array([0.7, 1.9])
    found = family_error(constant, Decay(), n_t=3, n_x=4, lams=lams)
    np.testing.assert_array_equal(found.lam, lams)
    for i, k in enumerate(lams):
        u = np.linspace(1, 4, 4) * np.exp(-k * np.array([[0], [1], [2]]))
        np.testing.assert_allclose(found.mse[i], np.mean((1 - u) ** 2), rtol=1e-14)
        relative = np.sqrt(np.sum((1 - u) ** 2) / np.sum(u**2))
        np.testing.assert_allclose(found.relative_l2[i], relative, rtol=1e-14)


def test_a_solution_that_does_not_depend_on_a_coordinate_fills_the_grid(constant):
    class Steady(Decay):
        def exact(self, t, x, lam):
            return x

    error = family_error(constant, Steady(), n_lam=2, n_t=3, n_x=4)
    np.testing.assert_allclose(error.mse, np.mean(np.arange(4.0) ** 2), rtol=1e-14)


def test_a_family_without_a_solution_cannot_be_measured(constant):
    problem = type("Other", (Decay,), {"exact": None})()
    said = r"problem = Other, expected one with .* exact\(t, x, lam\)"
    with pytest.raises(ValueError, match=said):
        family_error(constant, problem, n_lam=2, n_t=3, n_x=4)


class Product(hpx.AbstractPDE):
    """Of the coordinates and parameters that a subclass has."""

    domain = hpx.Box(y=(-1, 2), t=(1, 3), x=(0, 1, "periodic"))
    parameters = hpx.Box(b=(1, 4, "log"), a=(2, 5, "periodic"))
    derivatives = ()

    def residual(self, u, tx, lam):
        return u.value - self.exact(*tx, lam)

    def initial(self, tx, lam):
        return self.exact(*tx, lam)

    def boundary(self, tx, lam):
        return self.exact(*tx, lam)

    def exact(self, y, t, x, lam):
        return y * lam[0] + t * lam[1] + 0 * x


class Steady(Product):
    """In one coordinate, which is not time."""

    domain = hpx.Box(x=(0, 1))
    parameters = hpx.Box(k=(1, 3))
    initial = hpx.AbstractPDE.initial

    def exact(self, x, lam):
        return lam * x


def ones(problem, key):
    """A model that is 1 everywhere."""
    main = hpx.MainNetSpec((len(problem.domain), 1), problem.domain)
    model = eqx.filter_jit(hpx.ConcatPINN)(main, problem.parameters, key=key)
    model = jax.tree.map(jnp.zeros_like, model)
    return eqx.tree_at(lambda m: m.net.biases[0], model, jnp.ones(1))


def test_several_parameters_are_spread_over_their_range(getkey):
    problem = Product()
    found = family_error(ones(problem, getkey()), problem, n_lam=6, n_t=3, n_x=4)
    with jax.enable_x64(True):
        lams = eqx.filter_jit(hpx.latin_hypercube)(problem.parameters, 6, key=jax.random.key(0))
        scaled = np.asarray(problem.parameters.scale(lams))
    assert found.lam.shape == (6, 2) and found.mse.shape == (6,)
    np.testing.assert_allclose(found.lam, lams, rtol=1e-14)
    cells = np.sort(np.floor((scaled + 1) * 3), axis=0)
    np.testing.assert_array_equal(cells.T, [range(6), range(6)])


def test_three_coordinates_and_two_parameters(getkey):
    problem, lams = Product(), np.array([[1.5, 2.5], [4.0, -7.0]])
    model = ones(problem, getkey())
    found = family_error(model, problem, lams=lams, n_t=3, n_x=4)
    np.testing.assert_array_equal(found.lam, lams)
    y, t = np.meshgrid(np.linspace(-1, 2, 4), np.linspace(1, 3, 3))
    for i, (b, a) in enumerate(lams):
        u = b * y + a * t
        np.testing.assert_allclose(found.mse[i], np.mean((1 - u) ** 2), rtol=1e-13)
        relative = np.sqrt(np.sum((1 - u) ** 2) / np.sum(u**2))
        np.testing.assert_allclose(found.relative_l2[i], relative, rtol=1e-13)


def test_a_family_without_time(getkey):
    problem = Steady()
    found = family_error(ones(problem, getkey()), problem, n_lam=3, n_t=2, n_x=5)
    np.testing.assert_allclose(found.lam, [1, 2, 3], rtol=1e-15)
    x = np.linspace(0, 1, 5)
    expected = [np.mean((1 - k * x) ** 2) for k in (1, 2, 3)]
    np.testing.assert_allclose(found.mse, expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("problem", "shapes"),
    [
        (Steady, [(256,)]),
        (Decay, [(101, 1), (1, 256)]),
        (Product, [(32, 1, 1), (1, 101, 1), (1, 1, 32)]),
    ],
)
def test_the_grid_is_finer_along_a_single_coordinate(problem, shapes, getkey):
    seen = []

    class Seen(problem):
        def exact(self, *coordinates_and_lam):
            seen.append([np.shape(c) for c in coordinates_and_lam[:-1]])
            return 1.0

    lams = np.ones(1 if problem is not Product else (1, 2))
    family_error(ones(Seen(), getkey()), Seen(), lams=lams)
    assert seen == [shapes]


def test_many_models_are_measured_by_one_exact_solution(constant):
    seen = []

    class Counted(Decay):
        def exact(self, t, x, lam):
            seen.append(lam)
            return 0 * t + x * lam

    size = {"n_t": 3, "n_x": 4, "lams": np.array([0.5, 1.0])}
    points = EvaluationSet(Counted(), **size)
    for model in (constant, hpx.cast(constant, jnp.bfloat16)):
        found = points.error(model).mse
        np.testing.assert_array_equal(found, points.error(model).mse)
        assert seen == [0.5, 1.0]
    np.testing.assert_array_equal(found, family_error(model, Counted(), **size).mse)
    assert seen == 2 * [0.5, 1.0]


class Loose(hpx.AbstractModel):
    """Networks that are plain functions, of which each λ has a new one."""

    scale: jax.Array
    parameters: hpx.Box = eqx.field(static=True, default=Burgers.parameters)
    traced: list = eqx.field(static=True, default_factory=list)

    def generate(self, scaled):
        self.traced.append(scaled)
        return lambda p: self.scale[0] * jnp.sin(p[1]) * scaled[0]

    def config(self):
        return {}


def test_plain_functions_of_lambda_are_compiled_once_for_all_lambda(unchecked):
    model = Loose(jnp.ones(1))
    found = family_error(model, Burgers(), n_lam=5, n_t=2, n_x=3)
    assert len(model.traced) == 1
    one = family_error(model, Burgers(), lams=found.lam[3:4], n_t=2, n_x=3)
    np.testing.assert_allclose(found.mse[3:4], one.mse, rtol=1e-12)


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


def test_a_float64_network_on_a_grid_is_measured_in_float64():
    main = hpx.MainNetSpec((2, 3, 1), Burgers.domain)
    t, x = np.array([1 / 3]), np.array([1 / 7])
    with jax.enable_x64(True):
        net = hpx.cast(main.init(key=jax.random.key(0)), "float64")
        expected = np.asarray(net(np.array([1 / 3, 1 / 7])))
    for u in (net, lambda p: net(p)):
        assert hpx.on_grid(u, t, x).dtype == np.float64
    np.testing.assert_allclose(hpx.on_grid(net, t, x), expected[None, None], rtol=1e-15)


def test_parameters_are_checked_by_their_range(unchecked):
    box = Product()
    found = physical("lam", [1, -3], box)
    assert found.dtype == np.float64 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, [1, -3])
    assert physical("lam", np.ones((2, 4), "f")[:, ::2], box, "M").shape == (2, 2)
    with pytest.raises(ValueError, match=r"lam = .*, expected positive numbers for B"):
        physical("lam", [0.0, 3], box)
    with pytest.raises(ValueError, match=r"lams has shape \(2,\), expected \(M, 2\)"):
        physical("lams", [1, 3], box, "M")
    with pytest.raises(ValueError, match=r"lam has shape \(1,\), expected \(\)"):
        physical("lam", [1.0], Steady())
    # A range with zero in it may be left.
    assert physical("lam", -1, type("S", (Steady,), {"parameters": BELOW})()) == -1


BELOW = hpx.Box(k=(0, 3))


def test_a_model_that_is_not_finite_has_the_error_nan(family):
    broken = eqx.tree_at(lambda m: m.theta0, family, family.theta0 * jnp.nan)
    error = family_error(broken, Burgers(), n_lam=2, n_t=3, n_x=4)
    assert np.all(np.isnan(error.mse)) and np.isnan(error.mean)


def test_where_the_solution_is_zero_the_relative_error_is_infinite(constant):
    class Nothing(Decay):
        def exact(self, t, x, lam):
            return 0 * x

    error = family_error(constant, Nothing(), n_lam=2, n_t=3, n_x=4)
    np.testing.assert_array_equal(error.relative_l2, [np.inf, np.inf])


def test_a_family_may_hold_arrays(constant):
    class Scaled(Decay):
        size: jax.Array

        def exact(self, t, x, lam):
            return self.size * jnp.ones(())

    for size in (1.0, 3.0):
        error = family_error(constant, Scaled(jnp.array(size)), n_lam=2, n_t=3, n_x=4)
        np.testing.assert_allclose(error.mse, (size - 1) ** 2, rtol=1e-14)


@pytest.mark.parametrize(
    ("exact", "said"),
    [
        (lambda self, t, x, lam: np.ones(3), r"has shape \(3,\), expected \(3, 4\)"),
        (
            lambda self, t, x, lam: np.where(x > 3, np.nan, 1.0) + 0 * t,
            r"problem.exact\(t, x, 0.5\) holds nan at \(0, 3\)",
        ),
        (lambda self, t, x, lam: "no idea", "expected an array of real numbers"),
    ],
)
def test_an_exact_solution_that_is_none_is_an_error(exact, said, constant):
    problem = type("Wrong", (Decay,), {"exact": exact})()
    with pytest.raises(ValueError, match=said):
        family_error(constant, problem, n_lam=2, n_t=3, n_x=4)


@pytest.mark.parametrize(
    ("lams", "said"),
    [
        ([0.1, -0.1], "lams = .*expected"),
        (np.ones((2, 3)), "lams has shape"),
    ],
)
def test_parameters_that_make_no_sense_are_errors(lams, said, constant):
    with pytest.raises(ValueError, match=said):
        family_error(constant, Decay(), lams=np.array(lams))


@pytest.mark.parametrize(
    ("u", "said"),
    [
        (lambda tx: tx, r"u gives shape \(2,\) at a point, expected one number"),
        (lambda tx: tx[:1], r"u gives shape \(1,\) at a point"),
    ],
)
def test_what_gives_more_than_a_number_has_no_values_on_a_grid(u, said):
    with pytest.raises(ValueError, match=said):
        hpx.on_grid(u, np.array([0.0, 1.0]), np.array([2.0]))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_grid_has_an_axis_for_each_coordinate(d, x64, getkey):
    axes = [np.linspace(0, 1, 3), np.array([0.25]), np.linspace(-1, 0, 4)][:d]
    domain = hpx.Box(**dict.fromkeys("xyz"[:d], (-1, 1)))
    net = eqx.filter_jit(hpx.MainNetSpec((d, 4, 1), domain).init)(key=getkey())
    found, same = (hpx.on_grid(u, *axes) for u in (net, net.__call__))
    assert found.shape == (3, 1, 4)[:d] and found.dtype == np.float64
    np.testing.assert_allclose(found, same, rtol=1e-12)
    for index in np.ndindex(found.shape):
        point = [axis[i] for axis, i in zip(axes, index, strict=True)]
        np.testing.assert_allclose(found[index], net(jnp.array(point)), rtol=1e-12)


def test_a_grid_needs_axes():
    with pytest.raises(ValueError, match="axes = .*expected"):
        hpx.on_grid(jnp.sum)
