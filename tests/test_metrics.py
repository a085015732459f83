import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Burgers, FamilyError, family_error


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exact": None}, r"exact\(t, x, lam\)"),
        (
            {"domain": hpx.Box(x=(0, 1), y=(0, 1)), "derivatives": ()},
            "expected t and one more coordinate",
        ),
        ({"parameters": hpx.Box(a=(0, 1), b=(0, 1))}, "expected one parameter"),
    ],
)
def test_a_family_that_cannot_be_measured_is_an_error(changes, message, constant):
    problem = type("Other", (Decay,), changes)()
    with pytest.raises(ValueError, match=f"problem = Other.*{message}"):
        family_error(constant, problem, n_lam=2, n_t=3, n_x=4)


@pytest.mark.parametrize("name", ["n_lam", "n_t", "n_x"])
def test_an_axis_of_one_point_is_an_error(name, family):
    said = f"{name} = 1, expected an integer of at least 2"
    with pytest.raises(ValueError, match=said):
        family_error(family, Burgers(), **{name: 1})


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
        ([0.1, -0.1], "lams = .*expected positive numbers for Box.k="),
        ([0.1, np.nan], r"lams holds nan at \(1,\)"),
        ([], "nothing empty"),
    ],
)
def test_parameters_that_make_no_sense_are_errors(lams, said, constant):
    with pytest.raises(ValueError, match=said):
        family_error(constant, Decay(), lams=np.array(lams))


def test_a_network_is_no_family(constant, unchecked):
    with pytest.raises(TypeError, match="(?s)model = MainNet.*expected a Model"):
        family_error(constant(1.0), Decay())


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


def test_a_grid_may_be_lists(unchecked):
    found = hpx.on_grid(lambda tx: tx[0] * tx[1], [0, 1], [2, 3])
    np.testing.assert_array_equal(found, [[0, 0], [2, 3]])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (([0.1], [1.0, 2.0], [1.0]), "lam, mse and relative_l2 hold 1, 2 and 1 values"),
        (([np.nan], [1.0], [1.0]), "lam holds nan"),
    ],
)
def test_errors_that_do_not_belong_together(error, said, unchecked):
    with pytest.raises(ValueError, match=said):
        FamilyError(*error)


def test_junk(constant, throw_junk_at):
    good = {"model": constant, "problem": Decay(), "n_lam": 2, "n_t": 2, "n_x": 3}
    throw_junk_at(hpx.family_error, **good, examples=15)
    throw_junk_at(
        hpx.family_error, **good, lams=np.array([0.7, 1.9]), only=["lams"], examples=15
    )
    t, x, one = np.array([0.0, 1.0]), np.array([2.0, 3.0, 4.0]), np.ones(2)
    throw_junk_at(hpx.on_grid, u=lambda tx: tx[0], t=t, x=x)
    throw_junk_at(hpx.FamilyError, lam=one, mse=one, relative_l2=one)
