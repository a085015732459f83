import base64
import json
import re

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx


@pytest.fixture(scope="module")
def burgers():
    model = hpx.load_pretrained("burgers-hyperpinn")
    return model, hpx.live_figure(model, hpx.Burgers(), 0.003)


def test_the_weights_in_the_page_are_the_model(burgers):
    model, figure = burgers
    data = figure.data["model"]
    flat = np.frombuffer(base64.b64decode(data["weights"]), data["dtype"])
    assert flat.size == hpx.count_parameters(model)
    trunk = model.trunk
    leaves = [
        *[a for p in zip(trunk.weights, trunk.biases, strict=True) for a in p],
        model.head,
        model.theta0,
    ]
    assert np.array_equal(flat, np.concatenate([np.ravel(a) for a in leaves]))
    assert data["size"] == hpx.count_parameters(model(0.01))


def test_the_html_is_whole_and_asks_for_nothing(burgers):
    _, figure = burgers
    html = figure._repr_html_()
    inside = re.search(r'<script type="application/json">(.*?)</script>', html, re.S)
    assert json.loads(inside[1]) == json.loads(json.dumps(figure.data))
    assert re.search(r'<noscript><img src="data:image/png[^"]+" alt="[^"]+">', html)
    assert not re.search(r"https?:|url\(|import\(|fetch\(", html)
    assert html.count("</script>") == 2


def test_each_figure_has_a_name_of_its_own(burgers):
    model, first = burgers
    second = hpx.live_figure(model, hpx.Burgers())
    names = [re.search(r'id="(.+?)"', f.html)[1] for f in (first, second)]
    assert names[0] != names[1]


def test_golden_values_are_those_of_the_model(burgers):
    model, figure = burgers
    pair = figure.data["golden"][2]
    u = model(pair["lam"][0])
    found = [float(u(jnp.array(point))) for point in pair["points"]]
    assert np.allclose(found, np.ravel(pair["values"]), atol=2e-5)
    exact = hpx.Burgers().exact(*np.transpose(pair["points"]), pair["lam"][0])
    assert np.array_equal(exact, np.ravel(pair["exact"]))


def test_the_range_of_a_field_of_one_sign_starts_where_it_does():
    problem = hpx.Burgers()
    shape = hpx.MainNetSpec((2, 4, 1), problem.domain)
    model = hpx.HyperPINN(shape, problem.parameters, (4,), key=jr.key(0))
    low, high = hpx.live_figure(model, problem).data["range"]
    assert low < high
    assert low >= 0 or low == -high


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="model has layers .*expected 3 inputs"):
        hpx.live_figure(hpx.load_pretrained("burgers-hyperpinn"), hpx.Lorenz())
    with pytest.raises(ValueError, match="lam has shape"):
        hpx.live_figure(
            hpx.load_pretrained("burgers-hyperpinn"), hpx.Burgers(), jnp.ones(3)
        )


def test_weights_that_are_not_finite_are_refused(burgers):
    model, _ = burgers
    broken = eqx.tree_at(lambda m: m.theta0, model, model.theta0.at[7].set(jnp.nan))
    with pytest.raises(ValueError, match="model has weights that are not finite"):
        hpx.live_figure(broken, hpx.Burgers())


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
    assert figure.data["kind"] == "attractor" and figure.data["range"] is None
    assert re.search(
        r"<noscript><img src=.*sigma = 10, beta = 1.67, rho = 14", figure.html
    )
    pair = figure.data["golden"][1]
    lam, points = np.array(pair["lam"]), np.array(pair["points"])
    for point, slope in zip(points, pair["exact"], strict=True):
        np.testing.assert_allclose(problem(lam)(point), slope, rtol=1e-4, atol=1e-4)


def test_a_ring_goes_into_the_page_with_its_cosines_and_sines(getkey):
    problem = hpx.BurgersWave()
    main = hpx.MainNetSpec((2, 4, 1), problem.domain)
    model = eqx.filter_jit(hpx.HyperPINN)(main, problem.parameters, (5,), key=getkey())
    figure = hpx.live_figure(model, problem)
    data = figure.data["model"]
    assert data["inputs"]["x"] == (-1, 1, "periodic")
    assert data["parameters"]["phi"] == (-1, 1, "periodic")
    assert data["sizes"] == [3, 4, 1] and data["size"] == main.size == 4 * 4 + 5
    flat = np.frombuffer(base64.b64decode(data["weights"]), data["dtype"])
    assert flat.size == hpx.count_parameters(model) == 5 * 4 + main.size * 6
    assert figure.data["start"] == [1, 0]


def test_pictures_and_labels_have_the_names_of_the_coordinates(heat, getkey):
    domain = hpx.Box(y=(0, 2), x=(0, 1, "periodic"))
    timeless = {"domain": domain, "derivatives": (), "initial": hpx.AbstractPDE.initial}
    plate = type("Plate", (type(heat),), timeless)()
    main = hpx.MainNetSpec((2, 3, 1), domain)
    model = eqx.filter_jit(hpx.HyperPINN)(main, heat.parameters, (3,), key=getkey())
    figure = hpx.live_figure(model, plate)
    assert figure.data["labels"] == [
        "The solution as a heat map over y and x",
        "The solution at four values of y",
    ]


def test_a_solution_of_one_sign_has_a_range_of_one_sign(heat, hyper):
    raised = eqx.tree_at(lambda m: m.theta0, hyper, hyper.theta0.at[-1].set(9.0))
    low, high = hpx.live_figure(raised, heat).data["range"]
    assert 0 < low < 9 < high
