import dataclasses
import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import (
    Burgers,
    Lorenz,
    count_parameters,
    load_card,
    load_pretrained,
    paper,
    pretrained_names,
)
from hyperpinn_eqx.networks.checkpoint import read_card
from hyperpinn_eqx.networks.main import in_float64
from hyperpinn_eqx.paper import EXPERIMENTS

BURGERS = {  # of the model, and of the network that is evaluated at every point
    "burgers-hyperpinn": (9385, 393),
    "burgers-small-pinn": (401, 393),
    "burgers-large-pinn": (9665, 9633),
}
LORENZ = {
    "lorenz-hyperpinn": (1235, 115),
    "lorenz-small": (214, 115),
    "lorenz-large": (3334, 1795),
}
FAMILIES = {
    "allen-cahn-hyperpinn": (2033, 177),
    "transport-hyperpinn": (8913, 609),
    "burgers-wave-hyperpinn": (9121, 625),
    "plume-hyperpinn": (9121, 625),
    "brusselator-hyperpinn": (9086, 626),
    "rod-hyperpinn": (8889, 609),
    "wave-hyperpinn": (9097, 625),
    "poisson-hyperpinn": (8889, 609),
    "klein-gordon-hyperpinn": (45729, 3441),
    "kovasznay-hyperpinn": (9307, 643),
    "schroedinger-hyperpinn": (9110, 626),
    "korteweg-de-vries-hyperpinn": (2033, 177),
    "ring-hyperpinn": (2033, 177),
    "ellipse-hyperpinn": (8889, 609),
    "bump-hyperpinn": (9307, 643),
    "conductor-hyperpinn": (9110, 626),
}
COUNTS = BURGERS | LORENZ | FAMILIES
BOOK = pathlib.Path(__file__).parents[1] / "book" / "data"
POINT = np.array([0.5, -0.25], dtype=np.float32)
STATE = np.array([-3.0, 4.0, 20.0], dtype=np.float32)
CASE = np.array([10, 2, 20], dtype=np.float32)

each = pytest.mark.parametrize("name", COUNTS)
burgers = pytest.mark.parametrize("name", BURGERS)
lorenz = pytest.mark.parametrize("name", LORENZ)
family = pytest.mark.parametrize("name", FAMILIES)


def test_every_model_is_shipped_with_its_card():
    assert pretrained_names() == sorted(COUNTS)
    for name in COUNTS:
        assert load_card(name)["name"] == name
    for load in (load_pretrained, load_card):
        for wrong in ("burgers", "../pretrained/burgers-hyperpinn"):
            with pytest.raises(ValueError) as error:
                load(wrong)
            assert all(part in str(error.value) for part in (wrong, *COUNTS))


@each
def test_they_have_the_papers_counts_and_their_experiments_architecture(name):
    model, card = load_pretrained(name), load_card(name)
    middle = model.parameters.unscale(np.zeros(len(model.parameters)))
    net = model(CASE if name in LORENZ else middle)
    found = count_parameters(model), count_parameters(net)
    assert found == COUNTS[name] == tuple(card["parameters"].values())
    skeleton = eqx.filter_eval_shape(EXPERIMENTS[name].build, key=jax.random.key(0))
    told, wanted = model.config(), skeleton.config()
    # What is found by measuring depends on the machine in its last bit.
    ours, theirs = (config["main"].pop("outputs") or {} for config in (told, wanted))
    assert told == wanted and [*ours] == [*theirs]
    for output, ends in ours.items():
        np.testing.assert_allclose(ends, theirs[output], rtol=1e-9)
    # The card is inside the weights too.
    with hpx.pretrained.resources.as_file(hpx.pretrained._known(name, ".eqx")) as path:
        assert read_card(path) == card


@pytest.mark.parametrize("name", BURGERS | LORENZ)
def test_they_load_in_both_precisions(name):
    if name in LORENZ:
        exact, at, lam = Lorenz()(CASE)(jnp.asarray(STATE)), STATE, CASE
    else:
        exact, at, lam = Burgers().exact(*POINT, 0.1), POINT, 0.1
    for wide in (False, True):
        with jax.enable_x64(wide):
            found = load_pretrained(name)(lam)(jnp.asarray(at, float))
            assert found.dtype == ("float64" if wide else "float32")
            error = np.linalg.norm(np.asarray(found) - np.asarray(exact))
        assert error < 0.02 * max(1, np.linalg.norm(exact))


# --- Errors are those that the card tells ---------------------------------------------


@burgers
def test_the_card_tells_the_errors_that_the_weights_have(name):
    # Four of the 64 viscosities: every 21st.
    found = hpx.family_error(load_pretrained(name), Burgers(), n_lam=4)
    error = load_card(name)["error"]
    np.testing.assert_allclose(error["nu"][::21], found.lam, rtol=1e-5)
    np.testing.assert_allclose(error["mse_per_nu"][::21], found.mse, rtol=0.01)
    np.testing.assert_allclose(
        error["relative_l2_per_nu"][::21], found.relative_l2, rtol=0.01
    )
    assert len(error["nu"]) == len(error["mse_per_nu"]) == 64
    np.testing.assert_allclose(error["mse"], np.mean(error["mse_per_nu"]), rtol=1e-3)


def test_the_hyperpinn_is_a_hundred_times_as_good_as_the_papers():
    error = hpx.family_error(load_pretrained("burgers-hyperpinn"), Burgers())
    assert error.mean <= 1.9e-7 and error.mse[0] <= 5e-6


@lorenz
def test_the_card_tells_the_field_error_that_the_weights_have(name):
    found, _ = hpx.field_error(load_pretrained(name), Lorenz(), paper.test_set())
    told = load_card(name)["error"]["field_relative_l2"]
    np.testing.assert_allclose(told, found, rtol=1e-3)


def test_the_lorenz_hyperpinn_is_as_good_as_it_should_be():
    model, true = load_pretrained("lorenz-hyperpinn"), paper.test_set()
    assert hpx.field_error(model, Lorenz(), true)[0] <= 5e-3
    errors = hpx.trajectory_errors(
        hpx.simulate(model, true.lam, true.states[:, :, 0]), true
    )
    assert np.all(np.isfinite(errors))
    assert np.mean(errors) < 17.5 and np.median(errors) <= 0.1


@family
def test_the_card_tells_the_held_out_errors_that_the_weights_have(name):
    model = in_float64(load_pretrained)(name)
    error = paper.held_out_error(model, EXPERIMENTS[name].problem)
    told = load_card(name)["error"]
    found = np.median(error.relative_l2), np.max(error.relative_l2)
    wanted = told["median_relative_l2"], told["largest_relative_l2"]
    np.testing.assert_allclose(found, wanted, rtol=1e-2)
    # The first is the middle of the range.
    assert error.relative_l2[0] < 1e-3 and found[0] < 1e-3


# --- The card tells how it came about ------------------------------------------------


@each
def test_the_card_tells_how_the_model_was_trained(name):
    card, experiment = load_card(name), EXPERIMENTS[name]
    for key in ("seed", "date", "hardware", "versions", "dtype", "equation"):
        assert key in card
    if name in FAMILIES:
        wanted = [{"stage": "train_family", **experiment.settings}]
    else:
        stages = experiment.stages
        wanted = [{"stage": type(s).__name__, **dataclasses.asdict(s)} for s in stages]
    for settings, told in zip(wanted, card["stages"], strict=True):
        settings = json.loads(json.dumps(settings))
        assert {key: told.get(key) for key in settings} == settings
        assert told["seconds"] >= 0
    if name in LORENZ:
        assert "data" in card and card["error"]["finished"] == 100
    if name in BURGERS:
        assert all(stage["mse"] > 0 and stage["sampling"] for stage in card["stages"])
        for key in ("alpha", "symmetric", "odd", "weighted", "recipe"):
            assert card[key] == getattr(experiment, key)
        assert card["stages"][-1]["mse"] == card["error"]["mse"]


@burgers
def test_the_record_in_the_book_is_that_of_the_shipped_weights(name):
    runs = json.loads((BOOK / "burgers-runs.json").read_text("utf-8"))["runs"]
    [run] = [
        r for r in runs if (r["name"], r["recipe"], r["seed"]) == (name, "best", 0)
    ]
    card = load_card(name)
    assert run["mse_per_nu"] == card["error"]["mse_per_nu"]
    np.testing.assert_allclose(
        run["seconds"], sum(stage["seconds"] for stage in card["stages"]), atol=0.2
    )
