import matplotlib

matplotlib.use("Agg")

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import hyperpinn_eqx as hpx


@pytest.fixture
def axes():
    """Two axes side by side."""
    fig, axes = plt.subplots(1, 2)
    yield axes
    plt.close(fig)


class Wave(hpx.AbstractPDE):
    """A wave that moves by λ in the unit of time, from 2 to 4."""

    domain = hpx.Box(t=(1, 5), x=(0, 8))
    parameters = hpx.Box(c=(0.5, 1.0))

    def residual(self, u, tx, lam):
        return u.t + lam * u.x

    def exact(self, t, x, lam):
        return 3 + jnp.cos(jnp.pi * (x - lam * t) / 4)


def lines(ax):
    return [np.asarray(line.get_ydata()) for line in ax.lines]


def test_slices_show_the_exact_solution_and_networks(axes):
    hpx.plot_slices(axes, 0.01, {"zero": lambda tx: 0 * tx[1]}, problem=hpx.Burgers())
    x = np.linspace(-1, 1, 401)
    for ax, t in zip(axes, (0.5, 1.0), strict=True):
        exact, zero = lines(ax)
        np.testing.assert_array_equal(exact, hpx.Burgers().exact(t, x, 0.01))
        np.testing.assert_array_equal(zero, np.zeros(401))
        assert ax.get_title() == f"$t = {t:g}$"
        np.testing.assert_allclose(ax.get_ylim(), (-1.15, 1.15), rtol=1e-12)
    # The middle of both are other times of another domain.
    figure, other = plt.subplots(1, 2)
    hpx.plot_slices(other, 0.8, {"place": lambda tx: tx[1]}, problem=Wave())
    for ax, t in zip(other, (3.0, 5.0), strict=True):
        exact, place = lines(ax)
        x = np.linspace(0, 8, 401)
        wanted = 3 + np.cos(np.pi * (x - 0.8 * t) / 4)
        np.testing.assert_allclose(exact, wanted, rtol=1e-14)
        np.testing.assert_allclose(place, x, rtol=1e-6)
    plt.close(figure)


def test_slices_take_times_a_single_axes_and_a_square_of_them(axes):
    figure, square = plt.subplots(2, 2)
    for some, options, times in (
        (axes, {"times": (1.0, 2.5)}, [1, 2.5]),
        (axes[0], {}, [5]),
        (square, {}, [2, 3, 4, 5]),
    ):
        hpx.plot_slices(some, 0.8, {}, problem=Wave(), **options)
        titles = [ax.get_title() for ax in np.ravel(some)]
        assert titles == [f"$t = {t:g}$" for t in times]
    plt.close(figure)


class Flow(hpx.AbstractPDE):
    """A wave over two coordinates in space and two parameters."""

    domain = hpx.Box(y=(0, 2), t=(1, 5), x=(0, 8, "periodic"))
    parameters = hpx.Box(c=(0.5, 1.0), b=(-1, 1))

    def residual(self, u, tx, lam):
        return u.t + lam[0] * u.x

    def exact(self, y, t, x, lam):
        return y * jnp.cos(jnp.pi * (x - lam[0] * t) / 4) + lam[1]


LAM = np.array([0.8, 0.5])


@pytest.mark.parametrize(
    ("at", "along", "y", "x", "label"),
    [
        ({"y": 0.5}, "x", 0.5, np.linspace(0, 8, 401), "$u(t, x, y = 0.5)$"),
        ({"x": 7.0}, "y", np.linspace(0, 2, 401), 7.0, "$u(t, y, x = 7)$"),
        # The first in the domain is drawn along, and of the other the middle taken.
        (None, "y", np.linspace(0, 2, 401), 4.0, "$u(t, y, x = 4)$"),
    ],
)
def test_slices_of_two_space_dimensions(at, along, y, x, label, axes):
    nets = {"sum": lambda p: p[0] + 10 * p[1] + 100 * p[2]}
    hpx.plot_slices(axes, LAM, nets, problem=Flow(), at=at)
    for ax, t in zip(axes, (3.0, 5.0), strict=True):
        exact, found = lines(ax)
        wanted = y * np.cos(np.pi * (x - 0.8 * t) / 4) + 0.5
        np.testing.assert_allclose(exact, wanted, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(found, y + 10 * t + 100 * x, rtol=1e-6)
        np.testing.assert_allclose(
            ax.lines[0].get_xdata(), y if along == "y" else x, rtol=1e-15
        )
        assert ax.get_xlabel() == f"${along}$" and ax.get_title() == f"$t = {t:g}$"
    assert axes[0].get_ylabel() == label and axes[1].get_ylabel() == ""


def elsewhere(**domain):
    """The same over another domain."""
    return type("Elsewhere", (Flow,), {"domain": hpx.Box(**domain)})()


@pytest.mark.parametrize("field", [None, "u", "v"])
def test_slices_of_a_system_show_one_field(field, axes):
    problem, lam = hpx.Schroedinger(), np.array([1.2, 0.5])
    nets = {"both": lambda p: jnp.stack([p[1], 10 * p[1]])}
    hpx.plot_slices(axes[0], lam, nets, problem=problem, field=field)
    which, x = int(field == "v"), np.linspace(-5, 5, 401)
    exact, found = lines(axes[0])
    wanted = problem.exact(1.0, x, lam)[which]
    np.testing.assert_allclose(exact, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found, 10**which * x, rtol=1e-5)
    assert axes[0].get_ylabel() == f"${field or 'u'}(t, x)$"


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"field": "w"}, "field"),
        *(({"at": at}, "at") for at in ({"t": 1}, {"z": 1}, {"x": 1, "y": 1})),
        ({"at": {"y": 2.5}}, "at.*2.5"),
        ({"problem": elsewhere(y=(0, 2), x=(0, 8))}, "at"),
        ({"problem": elsewhere(t=(1, 5))}, "at"),
        *(({"times": times}, "times") for times in ((2.0, 5.5), (0.5, 2.0), (2.0,))),
        ({"lam": 0.8}, "lam"),
        ({"lam": [-1.0, 0.5]}, "lam"),
        ({"axes": []}, "axes"),
    ],
    ids=str,
)
def test_slices_of_what_makes_no_sense_are_errors(wrong, name, axes, unchecked):
    good = {"axes": axes, "lam": LAM, "nets": {}, "problem": Flow()}
    with pytest.raises((ValueError, TypeError), match=rf"^{name}\b"):
        hpx.plot_slices(**good | wrong)


def test_slices_of_a_family_without_exact_solution_are_an_error(axes, heat):
    with pytest.raises(ValueError, match="problem = Heat"):
        hpx.plot_slices(axes, 0.1, {}, problem=heat)


@pytest.mark.parametrize(
    ("domain", "wanted", "labels"),
    [
        (Wave.domain, (1, 5, 0, 8), ("$t$", "$x$")),
        (hpx.Box(x=(0, 1, "periodic"), y=(-2, 1)), (0, 1, -2, 1), ("$x$", "$y$")),
    ],
)
def test_a_field_lies_on_its_domain(domain, wanted, labels, axes):
    mesh = hpx.plot_field(axes[0], np.zeros((3, 5)), domain)
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == labels
    corners = np.asarray(mesh.get_coordinates())
    # Cells are centred on the points, so that half of one is outside at each end.
    t, x = (wanted[1] - wanted[0]) / 4, (wanted[3] - wanted[2]) / 8
    np.testing.assert_allclose(corners[0, 0], (wanted[0] - t, wanted[2] - x))
    np.testing.assert_allclose(corners[-1, -1], (wanted[1] + t, wanted[3] + x))


def test_what_is_not_finite_stays_blank(axes):
    u = np.array([[1.0, np.nan], [2.0, 3.0]])
    mesh = hpx.plot_field(axes[0], u, Wave.domain, limit=2.0)
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh.get_array()), np.isnan(u.T))
    assert mesh.get_clim() == (-2, 2)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"u": np.ones((1, 3))}, "u"),
        ({"u": np.ones((3, 1))}, "u"),
        ({"domain": hpx.Box(t=(0, 1))}, "domain"),
        ({"ax": None}, "ax"),
    ],
)
def test_a_field_that_cannot_be_drawn_is_an_error(wrong, name, axes, unchecked):
    good = {"ax": axes[0], "u": np.ones((2, 3)), "domain": Wave.domain}
    with pytest.raises((ValueError, TypeError), match=rf"^{name}\b"):
        hpx.plot_field(**good | wrong)


def family(lam):
    """Errors that are the number of the λ, from 1."""
    count = np.arange(1.0, 1 + len(lam))
    return hpx.FamilyError(np.array(lam), count, 10 * count)


def test_errors_are_drawn_by_measure_and_parameter(axes):
    several, single = family([[1.0, -3.0], [2.0, 5.0], [1.5, 0.0]]), family([1.0, 2.0])
    hpx.plot_errors(axes[0], {"a": several}, parameter=1)
    (line,) = axes[0].lines
    # Dots: neighbours in one parameter are none in the other.
    assert (line.get_linestyle(), line.get_marker()) == ("None", ".")
    np.testing.assert_array_equal(line.get_xdata(), [-3, 5, 0])
    np.testing.assert_array_equal(line.get_ydata(), [1, 2, 3])
    options = {"measure": "relative_l2", "lam": "$D$"}
    hpx.plot_errors(axes[1], {"a": single, "b": family([[1.0], [2.0]])}, **options)
    for line, label in zip(axes[1].lines, "ab", strict=True):
        assert (line.get_linestyle(), line.get_marker()) == ("-", "None")
        assert line.get_label() == label
        np.testing.assert_array_equal(line.get_ydata(), [10, 20])
    assert axes[0].get_xlabel() == r"$\lambda$" and axes[1].get_xlabel() == "$D$"
    assert axes[0].get_ylabel() != axes[1].get_ylabel()
    with pytest.raises(ValueError, match="parameter = 2"):
        hpx.plot_errors(axes[0], {"a": several}, parameter=2)


@pytest.mark.parametrize(
    ("lams", "scale"),
    [
        ([[1.0, 5.5]], "log"),
        ([[1.0, 4.5]], "linear"),
        ([[0.0, 100.0]], "linear"),
        ([[-1.0, 100.0]], "linear"),
        ([[1.0, 100.0], [1.0, 2.0]], "linear"),
        ([[1.0, 100.0], [1.0, 20.0]], "log"),
    ],
    ids=str,
)
def test_wide_ranges_are_drawn_by_decades(lams, scale, axes):
    hpx.plot_errors(axes[0], {str(i): family(lam) for i, lam in enumerate(lams)})
    assert (axes[0].get_xscale(), axes[0].get_yscale()) == (scale, "log")
