import dataclasses
import functools
import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Burgers, count_parameters, load, paper
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
from hyperpinn_eqx.paper.burgers import BURGERS
from hyperpinn_eqx.paper.lorenz import LORENZ
from hyperpinn_eqx.training.journal import Journal, Stopped

module = sys.modules["hyperpinn_eqx.paper.train"]  # `train` is the function

# By continuation; `test_main.py` trains a baseline by Adam.
TINY = BurgersExperiment(
    "tiny",
    (2, 3, 1),
    (3,),
    1.0,
    (
        Continuation(n_lam=2, first=2, steps=1, n_points=8, distill_steps=3),
        GaussNewton(2, n_lam=3, n_points=8, redraw=2, rank=8),
    ),
    n_data=(6, 8),
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
    with jax.enable_x64(True):
        return folder, *train(TINY, seed=3, out=folder, progress=False)


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
def test_the_experiments_have_the_papers_sizes(name, count, getkey):
    assert EXPERIMENTS[name].name == name
    skeleton = eqx.filter_eval_shape(EXPERIMENTS[name].build, key=getkey())
    assert sum(leaf.size for leaf in jax.tree.leaves(skeleton)) == count


def test_the_parts_of_a_continuation_have_keys_of_their_own(monkeypatch, getkey):
    keys = [getkey()]

    def follow(net, rows, lams, *, key, **_):
        keys.append(key)
        return hpx.FitResult(jnp.tile(net.flatten(), (len(lams), 1)), {}, 0.0)

    def distill(model, lams, path, *, key, **_):
        keys.append(key)
        return hpx.FitResult(model, {}, 0.0)

    monkeypatch.setattr(burgers, "follow", follow)
    monkeypatch.setattr(burgers, "distill", distill)
    model, rows = TINY.build(key=getkey()), TINY.rows(key=getkey())
    options = {"key": keys[0], "progress": False}
    burgers._continuation(TINY.stages[0], model, rows, "", options)
    assert len({tuple(jr.key_data(key).tolist()) for key in keys}) == 3


def test_training_writes_the_model(trained, x64):
    folder, model, _ = trained
    assert {file.name for file in folder.iterdir()} == {"tiny.eqx", "tiny.json"}
    assert eqx.tree_equal(load(folder / "tiny.eqx"), model)


def test_training_ends_in_float64(trained):
    _, model, _ = trained
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {np.dtype("float64")}


def test_training_writes_the_card_twice(trained):
    folder, _, card = trained
    beside = json.loads((folder / "tiny.json").read_text("utf-8"))
    assert beside == read_card(folder / "tiny.eqx") == json.loads(json.dumps(card))


def test_the_card_tells_what_was_done(trained):
    _, model, card = trained
    assert card["name"] == "tiny" and card["seed"] == 3
    assert card["parameters"]["model"] == count_parameters(model)
    for stage, told in zip(TINY.stages, card["stages"], strict=True):
        settings = {"stage": type(stage).__name__, **dataclasses.asdict(stage)}
        assert told.items() >= settings.items()
    assert card["recipe"] == "best"
    assert all(told["sampling"] for told in card["stages"])
    [[seconds, error]] = card["stages"][1]["curve"]
    assert 0 < seconds <= card["stages"][1]["seconds"] + 0.1 and error > 0


def test_a_stopped_training_goes_on_to_the_same_weights(
    trained, tiny, stop_at, tmp_path, x64
):
    folder = tmp_path / "out"
    options = {"seed": 3, "out": folder, "progress": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Journal", stop_at("2/2 GaussNewton", 1))
        with pytest.raises(Stopped, match="step 1 of '2/2 GaussNewton' is saved in"):
            train(TINY, **options)
    assert [file.name for file in folder.iterdir()] == ["tiny.journal"]
    model, card = train(TINY, resume=True, **options)
    assert eqx.tree_equal(model, trained[1])
    assert card["error"] == trained[2]["error"]
    assert {file.name for file in folder.iterdir()} == {"tiny.eqx", "tiny.json"}


def test_another_seed_cannot_go_on_with_a_journal(tiny, tmp_path, x64):
    Journal(tmp_path / "tiny.journal", {"name": "tiny", "seed": 1}).finish("0", {}, 1.0)
    with pytest.raises(ValueError, match="another training: .*seed = 1, expected 2"):
        train(TINY, seed=2, out=tmp_path, resume=True, progress=False)


def test_the_papers_recipe_is_adam_alone_on_plain_networks(getkey):
    assert RECIPES["paper"].keys() == {e.name for e in (*BURGERS, *LORENZ)}
    for name, experiment in RECIPES["paper"].items():
        assert experiment.recipe == "paper"
        assert [type(stage).__name__ for stage in experiment.stages] in (
            ["Adam"],
            ["MultistepAdam"],
        )
        build = eqx.filter_eval_shape(experiment.build, key=getkey())
        best = eqx.filter_eval_shape(EXPERIMENTS[name].build, key=getkey())
        assert count_parameters(build) == count_parameters(best)
    rows = RECIPES["paper"]["burgers-hyperpinn"].rows(key=getkey())
    assert len(rows.initial) == len(rows.boundary) == 50 and rows.weight is None


def test_a_symmetric_experiment_has_a_wall_in_the_middle(getkey):
    rows = EXPERIMENTS["burgers-hyperpinn"].rows(key=getkey())
    assert np.sum(np.asarray(rows.boundary)[:, 1] == 0) == 100
    assert set(np.unique(np.asarray(rows.boundary)[:, 1])) == {-1, 0, 1}


def test_the_card_tells_the_error_of_the_model(trained):
    _, model, card = trained
    found = burgers.family_error(model, Burgers())
    np.testing.assert_allclose(card["error"]["mse_per_nu"], found.mse, rtol=1e-3)
    np.testing.assert_allclose(card["error"]["mse"], found.mean, rtol=1e-12)


def test_a_name_is_no_experiment(tmp_path, unchecked):
    with pytest.raises(TypeError, match="experiment = 'burgers-hyperpinn', expected"):
        train("burgers-hyperpinn", out=tmp_path)


def test_nobody_changes_the_known_experiments():
    for known in (EXPERIMENTS, RECIPES, *RECIPES.values()):
        with pytest.raises(TypeError, match="does not support item assignment"):
            known["mine"] = TINY


def test_another_recipe_has_files_of_its_own():
    stems = [e.stem for recipe in RECIPES.values() for e in recipe.values()]
    assert len({*stems}) == len(stems) and "burgers-hyperpinn-paper" in stems


def test_float32_mode_is_an_error_before_anything_is_written(tiny, tmp_path):
    with pytest.raises(ValueError, match="jax_enable_x64 = False, expected True"):
        train(TINY, out=tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_parameter_counts_are_those_of_the_model_and_of_one_network(hyper):
    counts = paper.parameter_counts(hyper)
    assert counts == {"model": 123, "main network": 25}


@pytest.mark.parametrize("hidden", [(3, 2), None])
def test_lorenz_training_lowers_the_field_error(hidden, x64, tmp_path):
    start, finish = MultistepAdam(3, n_windows=4), MultistepGaussNewton(4, 8, 4, 8)
    stages = (start, finish)
    tiny = LorenzExperiment("tiny-lorenz", 4, hidden, 1.0, stages, duration=1.0)
    model, card = train(tiny, out=tmp_path, progress=False)
    adam, gauss = card["stages"]
    assert gauss["field_relative_l2"] < adam["field_relative_l2"]
    assert card["error"]["field_relative_l2"] == gauss["field_relative_l2"]
    assert card["error"]["finished"] == 100
    assert eqx.tree_equal(load(tmp_path / "tiny-lorenz.eqx"), model)


@pytest.fixture
def optimised():
    """What a test computes that needs all of the data: it is worth compiling well."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def test_the_lorenz_standardisation_is_that_of_the_data(optimised, x64):
    data = lorenz_data.training_set(key=jr.key(5))
    states = np.asarray(data.states)
    mean, spread = states.mean((0, 1, 2)), states.std((0, 1, 2))
    slopes = np.diff(states, axis=2).std((0, 1, 2)) / data.dt
    middle = (np.array(lorenz_data.STATE.high) + lorenz_data.STATE.low) / 2
    assert np.all(np.abs(mean - middle) < 0.1 * spread)
    np.testing.assert_allclose(lorenz_data.STATE.high - middle, spread, rtol=0.05)
    np.testing.assert_allclose(lorenz_data.SLOPE.high, slopes, rtol=0.05)


def test_no_test_case_was_seen_in_training(x64):
    seen = np.asarray(lorenz_data.training_set(1.0, key=jr.key(0)).lam)
    new = np.asarray(lorenz_data.test_set(1.0).lam)
    gap = np.linalg.norm(seen[:, None] - new[None], axis=-1)
    assert len(new) == 100 and jnp.all(gap > 0)


def test_every_family_beyond_the_paper_is_an_experiment(getkey):
    problems = {type(experiment.problem) for experiment in FAMILIES}
    assert problems == {hpx.AllenCahn, hpx.Transport, hpx.BurgersWave, hpx.Plume}
    for experiment in FAMILIES:
        assert EXPERIMENTS[experiment.name] is experiment
        assert experiment.name not in RECIPES["paper"]
        model = eqx.filter_eval_shape(experiment.build, key=getkey())
        assert model.main.inputs == experiment.problem.domain
        assert model.parameters == experiment.problem.parameters


# One λ, the periodic kind, and three.
@pytest.mark.parametrize("problem", [hpx.AllenCahn(), hpx.BurgersWave(), hpx.Plume()])
def test_held_out_parameters_fill_the_range_around_its_middle(problem, x64):
    box = problem.parameters
    lams = families.held_out(box)
    assert lams.shape == (65, len(box))[: 1 + (len(box) > 1)]
    scaled = np.asarray(box.scale(lams.reshape(65, -1)))
    np.testing.assert_allclose(scaled[0], np.zeros(len(box)), rtol=0, atol=1e-12)
    assert np.max(np.abs(scaled)) < 1
    # Of 64 equal parts of the range each has at most two, and most have one.
    parts = np.floor((scaled[1:] + 1) * 32).astype(int)
    for column in parts.T:
        assert np.max(np.bincount(column)) <= 2 and len(set(column)) > 60


@pytest.mark.parametrize("problem", [hpx.AllenCahn(), hpx.Plume()])
def test_held_out_parameters_are_the_same_in_any_precision(problem):
    found = families.held_out(problem.parameters)
    with jax.enable_x64(True):
        expected = families.held_out(problem.parameters)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


def test_the_held_out_error_is_that_of_the_held_out_parameters(monkeypatch, hyper):
    asked, none = [], hpx.FamilyError(*np.ones((3, 1)))
    monkeypatch.setattr(
        families,
        "family_error",
        lambda *given, **how: asked.append((given, how)) or none,
    )
    for problem, n_x in ((hpx.Transport(), 101), (hpx.Plume(), 41)):
        assert paper.held_out_error(hyper, problem) is none
        given, how = asked.pop()
        assert given == (hyper, problem) and (how["n_t"], how["n_x"]) == (41, n_x)
        expected = families.held_out(problem.parameters)
        np.testing.assert_array_equal(how["lams"], expected)


def test_a_family_is_trained_like_the_others(x64, tmp_path):
    settings = {"adam_steps": 3, "newton_steps": 2, "n_lam": 4, "n_points": 8}
    tiny = FamilyExperiment("tiny-wave", hpx.BurgersWave(), "a wave", (3,), (4,))
    tiny = dataclasses.replace(tiny, settings=settings)
    model, card = train(tiny, out=tmp_path, progress=False)
    assert eqx.tree_equal(load(tmp_path / "tiny-wave.eqx"), model)
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
    }
