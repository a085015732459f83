import base64
import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.box import unpack


@pytest.fixture(scope="module")
def burgers():
    model = hpx.load_pretrained("burgers-hyperpinn")
    return model, hpx.live_figure(model, hpx.Burgers(), 0.003)


def flat(model):
    """All weights in the order in which they are used."""
    pairs = zip(model.trunk.weights, model.trunk.biases, strict=True)
    leaves = [*(a for pair in pairs for a in pair), model.head, model.theta0]
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def in_the_page(figure):
    data = figure.data["model"]
    return np.frombuffer(base64.b64decode(data["weights"]), data["dtype"])


def test_the_page_has_the_model_and_asks_for_nothing(burgers):
    model, figure = burgers
    np.testing.assert_array_equal(in_the_page(figure), flat(model))
    assert figure.data["model"]["size"] == hpx.count_parameters(model(0.01))
    html = figure._repr_html_()
    inside = re.search(r'<script type="application/json">(.*?)</script>', html, re.S)
    assert json.loads(inside[1]) == json.loads(json.dumps(figure.data))
    assert re.search(r'<noscript><img src="data:image/png[^"]+" alt="[^"]+">', html)
    assert not re.search(r"https?:|url\(|import\(|fetch\(", html)
    assert html.count("</script>") == 2
    # Each has a name of its own.
    other = hpx.live_figure(model, hpx.Burgers())
    assert len({re.search(r'id="(.+?)"', f.html)[1] for f in (figure, other)}) == 2


def test_golden_values_are_those_of_the_model(burgers):
    model, figure = burgers
    pair = figure.data["golden"][2]
    u = model(pair["lam"][0])
    found = [float(u(jnp.array(point))) for point in pair["points"]]
    assert np.allclose(found, np.ravel(pair["values"]), atol=2e-5)
    exact = hpx.Burgers().exact(*np.transpose(pair["points"]), pair["lam"][0])
    assert np.array_equal(exact, np.ravel(pair["exact"]))


def test_a_range_is_symmetric_where_the_solution_takes_both_signs(heat, hyper):
    for last, both in ((0.0, True), (9.0, False)):
        raised = eqx.tree_at(lambda m: m.theta0, hyper, hyper.theta0.at[-1].set(last))
        ((low, high),) = hpx.live_figure(raised, heat).data["ranges"]
        assert (low == -high) == both and (0 < low < last < high) == (not both)


def test_other_models_are_refused(burgers):
    model, _ = burgers
    broken = eqx.tree_at(lambda m: m.theta0, model, model.theta0.at[7].set(jnp.nan))
    for args in ((model, hpx.Lorenz()), (broken, hpx.Burgers())):
        with pytest.raises(ValueError, match="model"):
            hpx.live_figure(*args)
    with pytest.raises(ValueError, match="lam"):
        hpx.live_figure(model, hpx.Burgers(), jnp.ones(3))


def test_a_system_goes_into_the_page_with_all_its_fields(getkey):
    problem = hpx.Kovasznay()
    main = hpx.MainNetSpec((2, 3, 3), problem.domain)
    model = eqx.filter_jit(hpx.HyperPINN)(main, problem.parameters, (3,), key=getkey())
    figure = hpx.live_figure(model, problem)
    assert figure.data["fields"] == ("u", "v", "p")
    ranges = np.array(figure.data["ranges"])
    # And that of the speed.
    assert ranges.shape == (4, 2) and np.all(ranges[:, 0] < ranges[:, 1])
    pair = figure.data["golden"][3]
    u = model(jnp.array(pair["lam"]))
    values = np.array([u(jnp.array(p)) for p in pair["points"]])
    np.testing.assert_allclose(pair["values"], values, atol=2e-5)
    other = hpx.HyperPINN(
        hpx.MainNetSpec((2, 3, 2), problem.domain),
        problem.parameters,
        (3,),
        key=getkey(),
    )
    with pytest.raises(ValueError, match="model"):
        hpx.live_figure(other, problem)


def test_a_family_may_have_no_exact_solution(heat, hyper):
    figure = hpx.live_figure(hyper, heat, 0.1)
    assert figure.data["equation"] is None
    np.testing.assert_allclose(figure.data["start"], [0.1], rtol=1e-6)
    assert "exact" not in figure.data["golden"][0]


def test_a_vector_field_is_drawn_beside_the_exact_one(getkey):
    problem = hpx.Lorenz()
    main = hpx.MainNetSpec((3, 4, 3), problem.initial, bounded=False)
    model = eqx.filter_jit(hpx.HyperPINN)(main, problem.parameters, (4,), key=getkey())
    figure = hpx.live_figure(model, problem)
    assert figure.data["kind"] == "attractor" and figure.data["ranges"] is None
    assert re.search(
        r"<noscript><img src=.*sigma = 10, beta = 1.67, rho = 14", figure.html
    )
    pair = figure.data["golden"][1]
    lam, points = np.array(pair["lam"]), np.array(pair["points"])
    for point, slope in zip(points, pair["exact"], strict=True):
        np.testing.assert_allclose(problem(lam)(point), slope, rtol=1e-4, atol=1e-4)


class Stretched(hpx.AbstractPDE):
    """A domain whose λ is periodic."""

    domain = hpx.Mapped(
        hpx.Box(a=(0, 1), b=(0, 1)), ("x", "y"), lambda s, lam: (s[0], s[1] * (2 + lam))
    )
    parameters = hpx.Box(phi=(-1, 1, "periodic"))

    def residual(self, u, xy, lam):
        return u.xx + u.yy


SHAPED = [hpx.Ring(), hpx.Ellipse(), hpx.Bump(), Stretched()]


@pytest.mark.parametrize("problem", SHAPED, ids=str)
def test_the_image_of_a_grid_goes_into_the_page_for_every_lambda(problem, x64, getkey):
    main = hpx.MainNetSpec((2, 4, len(problem.fields)), problem.bounds)
    model = hpx.HyperPINN(main, problem.parameters, (3,), key=getkey())
    data = hpx.live_figure(model, problem).data
    mesh, box = data["mesh"], problem.domain.reference
    basis, series = (
        np.frombuffer(base64.b64decode(mesh[name]), "<f4")
        for name in ("basis", "series")
    )
    assert mesh["rank"] <= 3
    axes = [
        np.linspace(low, high, n)
        for low, high, n in zip(box.low, box.high, mesh["shape"], strict=True)
    ]
    s = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    basis = basis.reshape(mesh["rank"], 2, len(s))
    series = series.reshape(mesh["rank"], *mesh["degrees"])
    for scaled in jr.uniform(getkey(), (4, len(problem.parameters)), minval=-1):
        by = series
        for value in np.asarray(scaled)[::-1]:
            by = by @ np.cos(np.arange(by.shape[-1]) * np.arccos(value))
        found = np.tensordot(by, basis, 1).T
        lam = unpack(problem.parameters, problem.parameters.unscale(scaled))
        wanted = jax.vmap(problem.domain.at, (0, None))(s, lam)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_ring_goes_into_the_page_with_its_cosines_and_sines(getkey):
    problem = hpx.BurgersWave()
    main = hpx.MainNetSpec((2, 4, 1), problem.domain)
    model = eqx.filter_jit(hpx.HyperPINN)(main, problem.parameters, (5,), key=getkey())
    figure = hpx.live_figure(model, problem)
    data = figure.data["model"]
    assert data["inputs"]["x"] == (-1, 1, "periodic")
    assert data["parameters"]["phi"] == (-1, 1, "periodic")
    assert data["sizes"] == [3, 4, 1] and data["size"] == main.size == 4 * 4 + 5
    assert len(in_the_page(figure)) == 5 * 4 + main.size * 6
    assert figure.data["start"] == [1, 0]


def test_pictures_and_labels_have_the_names_of_the_coordinates(heat, getkey):
    class Plate(hpx.AbstractPDE):
        domain = hpx.Box(y=(0, 2), x=(0, 1, "periodic"))
        parameters = heat.parameters

        def residual(self, u, yx, lam):
            return u.yy + u.xx

    main = hpx.MainNetSpec((2, 3, 1), Plate.domain)
    model = eqx.filter_jit(hpx.HyperPINN)(main, heat.parameters, (3,), key=getkey())
    figure = hpx.live_figure(model, Plate())
    over_both, at_some = figure.data["labels"]
    assert over_both.endswith("y and x") and at_some.endswith("y")
