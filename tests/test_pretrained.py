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
    family_error,
    field_error,
    load_card,
    load_pretrained,
    paper,
    pretrained_names,
    simulate,
    trajectory_errors,
)
from hyperpinn_eqx.networks.checkpoint import read_card
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
    "transport-hyperpinn": (4389, 261),
    "burgers-wave-hyperpinn": (4519, 271),
    "plume-hyperpinn": (5845, 373),
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


@each
def test_they_have_the_papers_counts(name):
    model = load_pretrained(name)
    middle = model.parameters.unscale(np.zeros(len(model.parameters)))
    net = model(CASE if name in LORENZ else middle)
    found = count_parameters(model), count_parameters(net)
    assert found == COUNTS[name]
    assert tuple(load_card(name)["parameters"].values()) == COUNTS[name]


@each
def test_they_have_the_architecture_of_their_experiment(name, getkey):
    skeleton = eqx.filter_eval_shape(EXPERIMENTS[name].build, key=getkey())
    assert load_pretrained(name).config() == skeleton.config()


@burgers
def test_they_load_in_float32(name):
    u = load_pretrained(name)(0.1)(jnp.asarray(POINT))
    assert u.dtype == jnp.float32
    np.testing.assert_allclose(u, Burgers().exact(0.5, -0.25, 0.1), rtol=0, atol=0.02)


@burgers
def test_they_load_in_float64(x64, name):
    u = load_pretrained(name)(0.1)(jnp.array([0.5, -0.25]))
    assert u.dtype == jnp.float64
    np.testing.assert_allclose(u, Burgers().exact(0.5, -0.25, 0.1), rtol=0, atol=0.02)


@burgers
def test_the_card_tells_the_errors_that_the_weights_have(x64, name):
    # Four of the 64 viscosities: every 21st.
    found = family_error(load_pretrained(name), Burgers(), n_lam=4)
    error = load_card(name)["error"]
    np.testing.assert_allclose(error["nu"][::21], found.lam, rtol=1e-5)
    np.testing.assert_allclose(error["mse_per_nu"][::21], found.mse, rtol=0.01)
    np.testing.assert_allclose(
        error["relative_l2_per_nu"][::21], found.relative_l2, rtol=0.01
    )


@burgers
def test_the_mean_on_the_card_is_the_mean_over_its_viscosities(name):
    error = load_card(name)["error"]
    assert len(error["nu"]) == len(error["mse_per_nu"]) == 64
    np.testing.assert_allclose(error["mse"], np.mean(error["mse_per_nu"]), rtol=1e-3)


def test_the_hyperpinn_is_a_hundred_times_as_good_as_the_papers():
    error = family_error(load_pretrained("burgers-hyperpinn"), Burgers())
    assert error.mean <= 1.9e-7 and error.mse[0] <= 5e-6


@burgers
def test_the_card_tells_how_the_model_was_trained(name):
    card, experiment = load_card(name), EXPERIMENTS[name]
    for stage, told in zip(experiment.stages, card["stages"], strict=True):
        settings = {"stage": type(stage).__name__, **dataclasses.asdict(stage)}
        assert {key: told.get(key) for key in settings} == settings
        assert told["seconds"] >= 0 and told["mse"] > 0 and told["sampling"]
    assert card["recipe"] == experiment.recipe == "best"
    for key in ("alpha", "symmetric", "odd", "weighted"):
        assert card[key] == getattr(experiment, key)
    assert card["stages"][-1]["mse"] == card["error"]["mse"]
    for key in ("seed", "date", "hardware", "versions", "dtype", "equation"):
        assert key in card


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


@lorenz
def test_lorenz_fields_load_in_both_precisions(name):
    exact = np.asarray(Lorenz()(CASE)(jnp.asarray(STATE)))
    single = load_pretrained(name)(CASE)(jnp.asarray(STATE))
    assert single.dtype == jnp.float32
    with jax.enable_x64(True):
        double = load_pretrained(name)(CASE)(jnp.asarray(STATE, jnp.float64))
        assert double.dtype == jnp.float64
    single, double = np.asarray(single), np.asarray(double)
    np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-3)
    assert np.linalg.norm(double - exact) < 0.02 * np.linalg.norm(exact)


@lorenz
def test_the_card_tells_the_field_error_that_the_weights_have(name):
    found, _ = field_error(load_pretrained(name), Lorenz(), paper.test_set())
    told = load_card(name)["error"]["field_relative_l2"]
    np.testing.assert_allclose(told, found, rtol=1e-3)


def test_the_lorenz_hyperpinn_is_as_good_as_it_should_be():
    model, true = load_pretrained("lorenz-hyperpinn"), paper.test_set()
    assert field_error(model, Lorenz(), true)[0] <= 5e-3
    errors = trajectory_errors(simulate(model, true.lam, true.states[:, :, 0]), true)
    assert np.all(np.isfinite(errors))
    assert np.mean(errors) < 17.5 and np.median(errors) <= 0.1


@lorenz
def test_the_card_tells_how_the_lorenz_model_was_trained(name):
    card, experiment = load_card(name), EXPERIMENTS[name]
    for stage, told in zip(experiment.stages, card["stages"], strict=True):
        settings = {"stage": type(stage).__name__, **dataclasses.asdict(stage)}
        assert {key: told.get(key) for key in settings} == settings
    for key in ("seed", "date", "hardware", "versions", "dtype", "equation", "data"):
        assert key in card
    assert card["error"]["finished"] == 100


@family
def test_the_card_tells_the_held_out_errors_that_the_weights_have(name):
    error = paper.held_out_error(load_pretrained(name), EXPERIMENTS[name].problem)
    told = load_card(name)["error"]
    found = np.median(error.relative_l2), np.max(error.relative_l2)
    wanted = told["median_relative_l2"], told["largest_relative_l2"]
    np.testing.assert_allclose(found, wanted, rtol=1e-2)
    # The first is the middle of the range.
    assert error.relative_l2[0] < 1e-3 and found[0] < 1e-3


@family
def test_the_card_tells_how_the_family_was_trained(name):
    card, experiment = load_card(name), EXPERIMENTS[name]
    [stage] = card["stages"]
    assert stage["stage"] == "train_family" and stage["seconds"] > 0
    settings = json.loads(json.dumps(experiment.settings))
    assert {key: stage.get(key) for key in settings} == settings
    for key in ("seed", "date", "hardware", "versions", "dtype", "equation"):
        assert key in card


@each
def test_the_card_is_inside_the_weights_too(name):
    with hpx.pretrained.resources.as_file(hpx.pretrained._known(name, ".eqx")) as path:
        assert read_card(path) == load_card(name)


@pytest.mark.parametrize("load", [load_pretrained, load_card])
def test_an_unknown_name_is_an_error_that_lists_the_names(load):
    with pytest.raises(ValueError) as error:
        load("burgers")
    for part in ("name = 'burgers'", *COUNTS):
        assert part in str(error.value)


def test_names_are_not_paths():
    with pytest.raises(ValueError, match="expected one of"):
        load_pretrained("../pretrained/burgers-hyperpinn")
