"""The live figures in a browser: what JavaScript draws is what JAX computes."""

import copy
import json

import jax.random as jr
import pytest

import hyperpinn_eqx as hpx

pytestmark = pytest.mark.pages


class Decay(hpx.AbstractPDE):
    """A family in other ranges than those of Burgers' equation, in two parameters."""

    domain = hpx.Box(t=(1.0, 3.0), x=(0.0, 5.0))
    parameters = hpx.Box(kappa=(0.1, 10.0, "log"), rate=(-1.0, 3.0))

    def residual(self, u, tx, lam):
        return u.t - lam[0] * u.xx + lam[1] * u.value

    @hpx.condition(t=1)
    def start(self, u, tx, lam):
        return u.value - tx[1] * (5 - tx[1])

    @hpx.condition(x=(0, 5))
    def walls(self, u, tx, lam):
        return u.value


def untrained(problem, inputs, sizes, hidden, **spec):
    shape = hpx.MainNetSpec(sizes, inputs, **spec)
    return hpx.HyperPINN(shape, problem.parameters, hidden, key=jr.key(0))


def figure(case):
    if case == "burgers":
        problem = hpx.Burgers()
        return hpx.live_figure(hpx.load_pretrained("burgers-hyperpinn"), problem)
    if case == "lorenz":
        return hpx.live_figure(hpx.load_pretrained("lorenz-hyperpinn"), hpx.Lorenz())
    if case == "not odd":
        problem = hpx.Burgers()
        model = untrained(problem, problem.domain, (2, 5, 7, 1), (4, 3))
    elif case == "odd":
        problem = hpx.Burgers()
        model = untrained(problem, problem.domain, (2, 9, 1), (6,), odd="x")
    elif case == "shape":
        problem = hpx.Ellipse()
        model = untrained(problem, problem.bounds, (2, 5, 4, 1), (6, 4))
    elif case == "flow":
        problem = hpx.Bump()
        model = untrained(problem, problem.bounds, (2, 6, 3), (4,))
    elif case == "ring":
        problem = hpx.BurgersWave()
        model = untrained(problem, problem.domain, (2, 5, 4, 1), (6, 4))
    else:
        problem = Decay()
        model = untrained(problem, problem.domain, (2, 6, 6, 1), (5, 5))
    return hpx.live_figure(model, problem)


@pytest.fixture(scope="module")
def figures():
    cases = "burgers", "lorenz", "not odd", "odd", "ring", "own", "shape", "flow"
    return {case: figure(case) for case in cases}


@pytest.fixture
def show(browser):
    """Shows HTML in a page, and keeps what the browser complains of."""
    pages = []

    def show(html, **options):
        page = browser.new_page(offline=True, **options)
        pages.append(page)
        page.troubles = []
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("request", lambda request: page.troubles.append(request.url))
        page.set_content(f"<!doctype html><html><body>{html}</body></html>")
        return page

    yield show
    for page in pages:
        page.close()


def report(page):
    return json.loads(page.locator(".hpx-live").get_attribute("data-check"))


def pixels(page, canvas=0):
    return page.locator("canvas").nth(canvas).evaluate("c => c.toDataURL()")


@pytest.mark.parametrize("case", ["burgers", "lorenz", "not odd", "odd", "ring", "own"])
def test_javascript_computes_what_jax_does(figures, show, case):
    page = show(figures[case].html)
    assert report(page)["error"] <= 1e-9
    assert not page.troubles


@pytest.mark.parametrize("case", ["shape", "flow"])
def test_the_page_knows_the_domain_of_every_lambda(figures, show, case):
    page = show(figures[case].html)
    # The images of the nodes are in float32.
    assert report(page)["error"] <= 1e-6
    assert not page.troubles


def test_each_field_of_a_flow_and_its_speed_can_be_chosen(figures, show):
    page = show(figures["flow"].html)
    choice = page.get_by_role("combobox")
    assert choice.locator("option").all_text_contents() == ["u", "v", "p", "speed"]
    drawn = {pixels(page)}
    for name in ("u", "v", "p"):
        choice.select_option(name)
        drawn.add(pixels(page))
        assert page.locator(".hpx-status").text_content().startswith(f"{name} from")
    assert len(drawn) == 4


def test_a_wrong_figure_says_so(figures, show):
    data = figures["own"].data
    wrong = copy.deepcopy(data)
    wrong["golden"][0]["values"][3][0] += 1e-3
    compact = {"separators": (",", ":")}
    html = figures["own"].html.replace(
        json.dumps(data, **compact), json.dumps(wrong, **compact)
    )
    page = show(html)
    assert report(page)["error"] == pytest.approx(1e-3)
    assert page.get_by_text("This figure failed its check").is_visible()


@pytest.mark.parametrize("case", ["burgers", "lorenz", "ring", "own", "shape", "flow"])
def test_sliders_obey_the_keyboard(figures, show, case):
    page = show(figures[case].html, reduced_motion="reduce")
    for slider in page.get_by_role("slider").all():
        before, drawn = slider.get_attribute("aria-valuetext"), pixels(page)
        slider.focus()
        page.keyboard.press("Home")
        assert slider.get_attribute("aria-valuetext") != before
        assert pixels(page) != drawn
        assert slider.get_attribute("aria-label")
    assert not page.troubles


def test_play_moves_the_viscosity_until_it_is_stopped(figures, show):
    page = show(figures["burgers"].html)
    value = page.locator("output")
    before = value.text_content()
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "text => document.querySelector('output').textContent !== text", arg=before
    )
    page.get_by_role("button", name="Stop").click()
    stopped = value.text_content()
    page.wait_for_timeout(100)
    assert value.text_content() == stopped


def test_nothing_turns_for_readers_who_asked_for_that(figures, show):
    page = show(figures["lorenz"].html, reduced_motion="reduce")
    drawn = pixels(page)
    page.wait_for_timeout(200)
    assert pixels(page) == drawn
    page.get_by_role("button", name="Rotate").click()
    page.wait_for_timeout(200)
    assert pixels(page) != drawn


@pytest.mark.parametrize("case", ["burgers", "lorenz"])
def test_the_theme_is_followed(figures, show, case):
    page = show(figures[case].html, reduced_motion="reduce")
    drawn = pixels(page)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(50)
    assert pixels(page) != drawn


@pytest.mark.parametrize("case", ["burgers", "lorenz"])
def test_a_picture_stands_in_where_there_is_no_script(figures, show, case):
    page = show(figures[case].html, java_script_enabled=False)
    picture = page.locator("noscript img")
    assert picture.is_visible()
    assert picture.get_attribute("alt")
