import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import (
    Burgers,
    count_parameters,
    family_error,
    load_card,
    load_pretrained,
    pretrained_names,
)
from hyperpinn_eqx.checkpoint import read_card
from hyperpinn_eqx.experiments import EXPERIMENTS

COUNTS = {  # of the model, and of the network that is evaluated at every point
    "burgers-hyperpinn": (9385, 393),
    "burgers-small-pinn": (401, 393),
    "burgers-large-pinn": (9665, 9633),
}
POINT = np.array([0.5, -0.25], dtype=np.float32)

each = pytest.mark.parametrize("name", COUNTS)


def test_every_model_is_shipped_with_its_card():
    assert pretrained_names() == sorted(COUNTS)
    for name in COUNTS:
        assert load_card(name)["name"] == name


@each
def test_they_have_the_papers_counts(name):
    model = load_pretrained(name)
    found = count_parameters(model), count_parameters(model(0.01))
    assert found == COUNTS[name]
    assert tuple(load_card(name)["parameters"].values()) == COUNTS[name]


@each
def test_they_have_the_architecture_of_their_experiment(name, getkey):
    skeleton = eqx.filter_eval_shape(EXPERIMENTS[name].build, key=getkey())
    assert load_pretrained(name).config() == skeleton.config()


@each
def test_they_load_in_float32(name):
    u = load_pretrained(name)(0.1)(jnp.asarray(POINT))
    assert u.dtype == jnp.float32
    np.testing.assert_allclose(u, Burgers().exact(0.5, -0.25, 0.1), rtol=0, atol=0.02)


@each
def test_they_load_in_float64(x64, name):
    u = load_pretrained(name)(0.1)(jnp.array([0.5, -0.25]))
    assert u.dtype == jnp.float64
    np.testing.assert_allclose(u, Burgers().exact(0.5, -0.25, 0.1), rtol=0, atol=0.02)


@each
def test_the_card_tells_the_errors_that_the_weights_have(x64, name):
    # Four of the 64 viscosities: every 21st.
    found = family_error(load_pretrained(name), Burgers(), n_lam=4)
    error = load_card(name)["error"]
    np.testing.assert_allclose(error["nu"][::21], found.lam, rtol=1e-5)
    np.testing.assert_allclose(error["mse_per_nu"][::21], found.mse, rtol=0.01)
    np.testing.assert_allclose(
        error["relative_l2_per_nu"][::21], found.relative_l2, rtol=0.01
    )


@each
def test_the_mean_on_the_card_is_the_mean_over_its_viscosities(name):
    error = load_card(name)["error"]
    assert len(error["nu"]) == len(error["mse_per_nu"]) == 64
    np.testing.assert_allclose(error["mse"], np.mean(error["mse_per_nu"]), rtol=1e-3)


def test_the_hyperpinn_is_as_good_as_the_papers():
    model = load_pretrained("burgers-hyperpinn")
    assert family_error(model, Burgers()).mean <= 1.9e-5


@each
def test_the_card_tells_how_the_model_was_trained(name):
    card, experiment = load_card(name), EXPERIMENTS[name]
    stages = [experiment.start, experiment.finish]
    for stage, told in zip(stages, card["stages"], strict=True):
        settings = {"stage": type(stage).__name__, **dataclasses.asdict(stage)}
        assert {key: told.get(key) for key in settings} == settings
        assert told["seconds"] >= 0 and told["mse"] > 0
    assert card["alpha"] == experiment.alpha
    assert card["stages"][-1]["mse"] == card["error"]["mse"]
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
