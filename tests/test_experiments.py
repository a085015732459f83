import dataclasses
import functools
import json

import equinox as eqx
import jax
import numpy as np
import pytest

from hyperpinn_eqx import Burgers, count_parameters, experiments, load
from hyperpinn_eqx.checkpoint import read_card
from hyperpinn_eqx.experiments import (
    EXPERIMENTS,
    Adam,
    Continuation,
    Experiment,
    GaussNewton,
    build,
    train,
)

FINISH = GaussNewton(2, n_lam=3, n_points=8, redraw=2, rank=8)
TINY = {
    "hyper": Experiment(
        "hyper",
        (2, 3, 1),
        (3,),
        1.0,
        Continuation(n_lam=2, first=2, steps=1, n_points=8, distill_steps=3),
        FINISH,
    ),
    "concat": Experiment(
        "concat", (2, 3, 1), None, 1.0, Adam(3, n_lam=2, n_points=4), FINISH
    ),
}


@pytest.fixture(scope="module")
def tiny():
    """Experiments that take a second, judged on a coarse grid."""
    coarse = functools.partial(experiments.family_error, n_lam=3, n_t=4, n_x=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "EXPERIMENTS", TINY)
        patch.setattr(experiments, "family_error", coarse)
        yield


@pytest.fixture(scope="module", params=TINY)
def trained(request, tiny, tmp_path_factory):
    """One training run for several tests: name, folder, model and card."""
    folder = tmp_path_factory.mktemp(request.param) / "made" / "on demand"
    with jax.enable_x64(True):
        model, card = train(request.param, seed=3, out=folder, progress=False)
    return request.param, folder, model, card


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("burgers-hyperpinn", 9385),
        ("burgers-small-pinn", 401),
        ("burgers-large-pinn", 9665),
    ],
)
def test_the_experiments_have_the_papers_sizes(name, count, getkey):
    assert EXPERIMENTS[name].name == name
    skeleton = eqx.filter_eval_shape(build, EXPERIMENTS[name], key=getkey())
    assert sum(leaf.size for leaf in jax.tree.leaves(skeleton)) == count


def test_training_writes_the_model(trained, x64):
    name, folder, model, _ = trained
    assert {file.name for file in folder.iterdir()} == {f"{name}.eqx", f"{name}.json"}
    assert eqx.tree_equal(load(folder / f"{name}.eqx"), model)


def test_training_ends_in_float64(trained):
    _, _, model, _ = trained
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {np.dtype("float64")}


def test_training_writes_the_card_twice(trained):
    name, folder, _, card = trained
    beside = json.loads((folder / f"{name}.json").read_text("utf-8"))
    assert beside == read_card(folder / f"{name}.eqx") == json.loads(json.dumps(card))


def test_the_card_tells_what_was_done(trained):
    name, _, model, card = trained
    assert card["name"] == name and card["seed"] == 3
    assert card["parameters"]["model"] == count_parameters(model)
    for stage, told in zip((TINY[name].start, FINISH), card["stages"], strict=True):
        settings = {"stage": type(stage).__name__, **dataclasses.asdict(stage)}
        assert told.items() >= settings.items()


def test_the_card_tells_the_error_of_the_model(trained):
    _, _, model, card = trained
    found = experiments.family_error(model, Burgers())
    np.testing.assert_allclose(card["error"]["mse_per_nu"], found.mse, rtol=1e-3)
    np.testing.assert_allclose(card["error"]["mse"], found.mean, rtol=1e-12)


@pytest.mark.parametrize("trained", ["concat"], indirect=True)
def test_the_seed_decides_the_model(trained, x64, tmp_path):
    name, _, model, _ = trained
    again, _ = train(name, seed=3, out=tmp_path, progress=False)
    assert eqx.tree_equal(again, model)


def test_an_unknown_name_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="name = 'x', expected one of"):
        train("x", out=tmp_path)


def test_float32_mode_is_an_error_before_anything_is_written(tiny, tmp_path):
    with pytest.raises(ValueError, match="jax_enable_x64 = False, expected True"):
        train("concat", out=tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_parameter_counts_are_those_of_the_model_and_of_one_network(hyper):
    counts = experiments.parameter_counts(hyper)
    assert counts == {"model": 123, "main network": 25}
