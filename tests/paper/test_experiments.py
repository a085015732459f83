import dataclasses
import functools
import json
import sys

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import load, paper
from hyperpinn_eqx.networks.checkpoint import read_card
from hyperpinn_eqx.paper import (
    EXPERIMENTS,
    FAMILIES,
    RECIPES,
    BurgersExperiment,
    Continuation,
    FamilyExperiment,
    GaussNewton,
    LorenzExperiment,
    MultistepAdam,
    MultistepGaussNewton,
    burgers,
    families,
    lorenz_data,
    train,
)
from hyperpinn_eqx.training.journal import Stopped

module = sys.modules["hyperpinn_eqx.paper.train"]  # `train` is the function

# By continuation; `test_command_line.py` trains a baseline by Adam.
TINY = BurgersExperiment(
    "tiny",
    (2, 3, 1),
    (3,),
    1.0,
    (
        Continuation(n_lam=2, first=2, steps=1, n_points=8, distill_steps=3),
        GaussNewton(2, n_lam=3, n_points=8, redraw=2, rank=8),
    ),
    n_conditions=6,
)


@pytest.fixture(scope="module")
def tiny():
    """An experiment that takes a second, judged on a coarse grid."""
    coarse = functools.partial(burgers.family_error, n_lam=3, n_t=4, n_x=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(burgers, "family_error", coarse)
        yield


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """One training run for several tests: the folder, the model and its card."""
    folder = tmp_path_factory.mktemp("train") / "made" / "on demand"
    return folder, *train(TINY, seed=3, out=folder, progress=False)


def test_training_writes_the_model_in_float64_and_its_card_twice(trained):
    folder, model, card = trained
    assert {file.name for file in folder.iterdir()} == {"tiny.eqx", "tiny.json"}
    with jax.enable_x64(True):
        assert eqx.tree_equal(load(folder / "tiny.eqx"), model)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {np.dtype("float64")}
    beside = json.loads((folder / "tiny.json").read_text("utf-8"))
    assert beside == read_card(folder / "tiny.eqx") == json.loads(json.dumps(card))


def test_the_card_tells_what_was_done_and_the_error_of_the_model(trained):
    _, model, card = trained
    assert card["name"] == "tiny" and card["seed"] == 3 and card["recipe"] == "best"
    assert card["parameters"]["model"] == hpx.count_parameters(model)
    for stage, told in zip(TINY.stages, card["stages"], strict=True):
        settings = {"stage": type(stage).__name__, **dataclasses.asdict(stage)}
        assert told.items() >= settings.items() and told["sampling"]
    [[seconds, error]] = card["stages"][1]["curve"]
    assert 0 < seconds <= card["stages"][1]["seconds"] + 0.1 and error > 0
    found = burgers.family_error(model, hpx.Burgers())
    np.testing.assert_allclose(card["error"]["mse_per_nu"], found.mse, rtol=1e-3)
    np.testing.assert_allclose(card["error"]["mse"], found.mean, rtol=1e-12)


def test_a_stopped_training_goes_on_to_the_same_weights(trained, stop_at, tmp_path):
    folder = tmp_path / "out"
    options = {"seed": 3, "out": folder, "progress": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Journal", stop_at("2/2 GaussNewton", 1))
        with pytest.raises(Stopped):
            train(TINY, **options)
    assert [file.name for file in folder.iterdir()] == ["tiny.journal"]
    model, card = train(TINY, resume=True, **options)
    assert eqx.tree_equal(model, trained[1])
    assert card["error"] == trained[2]["error"]
    assert {file.name for file in folder.iterdir()} == {"tiny.eqx", "tiny.json"}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("burgers-hyperpinn", 9385),
        ("burgers-small-pinn", 401),
        ("burgers-large-pinn", 9665),
        ("lorenz-hyperpinn", 1235),
        ("lorenz-small", 214),
        ("lorenz-large", 3334),
    ],
)
def test_both_recipes_have_the_papers_sizes(name, count, getkey):
    for recipe, kinds in (("best", None), ("paper", {"Adam", "MultistepAdam"})):
        experiment = RECIPES[recipe][name]
        assert experiment.name == name and experiment.recipe == recipe
        skeleton = eqx.filter_eval_shape(experiment.build, key=getkey())
        assert sum(leaf.size for leaf in jax.tree.leaves(skeleton)) == count
        # The paper's is Adam alone.
        assert not kinds or {type(s).__name__ for s in experiment.stages} <= kinds


def test_conditions_are_the_papers_or_have_a_wall_in_the_middle():
    stems = [e.stem for recipe in RECIPES.values() for e in recipe.values()]
    assert len({*stems}) == len(stems) and "burgers-hyperpinn-paper" in stems
    plain, symmetric = (
        RECIPES[recipe]["burgers-hyperpinn"].loss() for recipe in ("paper", "best")
    )
    assert [*plain.terms] == ["physics", "start", "walls"] and plain.factor is None
    assert [*symmetric.terms] == ["physics", "start", "walls", "middle"]
    assert symmetric.factor
    # A point of any condition counts like any other.
    for loss, counts in ((plain, (1, 1)), (symmetric, (1, 2, 1))):
        weights = np.array([term.weight for term in loss.terms.values()][1:])
        np.testing.assert_allclose(weights, np.array(counts) / sum(counts))


@pytest.mark.slow
def test_lorenz_training_lowers_the_field_error(tmp_path):
    finish = MultistepGaussNewton(4, 8, 4, 8, frozen_trunk=True)
    stages = (MultistepAdam(3, n_windows=4), finish)
    tiny = LorenzExperiment("tiny-lorenz", 4, (3, 2), 1.0, stages, duration=1.0)
    model, card = train(tiny, out=tmp_path, progress=False)
    adam, gauss = card["stages"]
    assert gauss["field_relative_l2"] < adam["field_relative_l2"]
    assert card["error"]["field_relative_l2"] == gauss["field_relative_l2"]
    assert card["error"]["finished"] == 100
    with jax.enable_x64(True):
        assert eqx.tree_equal(load(tmp_path / "tiny-lorenz.eqx"), model)


@pytest.fixture
def optimised():
    """What a test computes that needs all of the data: it is worth compiling well."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
def test_the_lorenz_standardisation_is_that_of_the_data(optimised):
    data = lorenz_data.training_set(key=jr.key(5))
    states = np.asarray(data.states)
    mean, spread = states.mean((0, 1, 2)), states.std((0, 1, 2))
    slopes = np.diff(states, axis=2).std((0, 1, 2)) / data.dt
    middle = (np.array(lorenz_data.STATE.high) + lorenz_data.STATE.low) / 2
    assert np.all(np.abs(mean - middle) < 0.1 * spread)
    np.testing.assert_allclose(lorenz_data.STATE.high - middle, spread, rtol=0.05)
    np.testing.assert_allclose(lorenz_data.SLOPE.high, slopes, rtol=0.05)


def test_no_test_case_was_seen_in_training():
    seen = np.asarray(lorenz_data.training_set(0.01, key=jr.key(0)).lam)
    new = np.asarray(lorenz_data.test_set(0.01).lam)
    gap = np.linalg.norm(seen[:, None] - new[None], axis=-1)
    assert len(new) == 100 and np.all(gap > 0)


def test_every_family_beyond_the_paper_is_an_experiment(getkey):
    known = {
        kind
        for kind in vars(hpx).values()
        if isinstance(kind, type) and issubclass(kind, hpx.AbstractPDE)
    }
    problems = {type(experiment.problem) for experiment in FAMILIES}
    assert problems == known - {hpx.AbstractPDE, hpx.Burgers, hpx.Manufactured}
    for experiment in FAMILIES:
        assert EXPERIMENTS[experiment.name] is experiment
        assert experiment.name not in RECIPES["paper"]
        model = eqx.filter_eval_shape(experiment.build, key=getkey())
        assert model.main.inputs == experiment.problem.bounds
        assert model.parameters == experiment.problem.parameters


# One λ, the periodic kind, and three.
@pytest.mark.parametrize("problem", [hpx.AllenCahn(), hpx.BurgersWave(), hpx.Plume()])
def test_held_out_parameters_fill_the_range_around_its_middle(problem):
    box = problem.parameters
    lams = families.held_out(box)
    assert lams.shape == (65, len(box))[: 1 + (len(box) > 1)]
    with jax.enable_x64(True):
        np.testing.assert_array_equal(families.held_out(box), lams)
        scaled = np.asarray(box.scale(lams.reshape(65, -1)))
    np.testing.assert_allclose(scaled[0], np.zeros(len(box)), rtol=0, atol=1e-12)
    assert np.max(np.abs(scaled)) < 1
    # Of 64 equal parts of the range each has at most two, and most have one.
    parts = np.floor((scaled[1:] + 1) * 32).astype(int)
    for column in parts.T:
        assert np.max(np.bincount(column)) <= 2 and len(set(column)) > 60


@pytest.mark.slow
def test_a_family_is_trained_like_the_others(tmp_path):
    settings = {"adam_steps": 2, "newton_steps": 1, "n_lam": 2, "n_points": 8}
    tiny = FamilyExperiment("tiny-wave", hpx.BurgersWave(), "a wave", (3,), (4,))
    tiny = dataclasses.replace(tiny, settings=settings)
    model, card = train(tiny, out=tmp_path, progress=False)
    skeleton = eqx.filter_eval_shape(tiny.build, key=jr.key(0))
    assert model.config() == skeleton.config() == card["architecture"]
    beside = json.loads((tmp_path / "tiny-wave.json").read_text("utf-8"))
    assert beside == json.loads(json.dumps(card))
    (stage,) = card["stages"]
    assert stage.items() >= settings.items() and card["recipe"] == "best"
    assert card["domain"] == {"t": (0, 1), "x": (-1, 1, "periodic")}
    error = paper.held_out_error(model, tiny.problem)
    found = {k: v for k, v in card["error"].items() if k != "set"}
    assert found == {
        "median_relative_l2": np.median(error.relative_l2),
        "largest_relative_l2": np.max(error.relative_l2),
        "pooled_relative_l2": error.pooled,
        "held_out_loss": found["held_out_loss"],
    }
    assert 0 < found["held_out_loss"] < np.inf
