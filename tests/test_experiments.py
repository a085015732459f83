import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperpinn_eqx import count_parameters, experiments, load
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


@pytest.fixture
def tiny(monkeypatch):
    """Experiments that take a second, judged on a coarse grid."""
    coarse = functools.partial(experiments.family_error, n_lam=3, n_t=4, n_x=5)
    monkeypatch.setattr(experiments, "EXPERIMENTS", TINY)
    monkeypatch.setattr(experiments, "family_error", coarse)


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
    assert count_parameters(build(EXPERIMENTS[name], key=getkey())) == count


@pytest.mark.parametrize("name", TINY)
def test_training_writes_a_model_and_its_card(name, tiny, x64, tmp_path):
    folder = tmp_path / "made" / "on demand"
    model, card = train(name, seed=3, out=folder, progress=False)
    assert {file.name for file in folder.iterdir()} == {f"{name}.eqx", f"{name}.json"}
    assert eqx.tree_equal(load(folder / f"{name}.eqx"), model)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("float64")}
    written = json.loads((folder / f"{name}.json").read_text("utf-8"))
    assert written == read_card(folder / f"{name}.eqx") == json.loads(json.dumps(card))

    assert card["name"] == name and card["seed"] == 3
    assert card["parameters"]["model"] == count_parameters(model)
    assert len(card["error"]["mse_per_nu"]) == 3
    assert np.isfinite(card["error"]["mse"])
    start, finish = card["stages"]
    assert start["stage"] == type(TINY[name].start).__name__
    assert finish["n_points"] == 8


def test_the_seed_decides_the_model(tiny, x64, tmp_path):
    first, again = (
        train("concat", seed=1, out=tmp_path, progress=False)[0] for _ in range(2)
    )
    assert eqx.tree_equal(first, again)


def test_an_unknown_name_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="name = 'x', expected one of burgers-hyper"):
        train("x", out=tmp_path)


def test_float32_mode_is_an_error_before_anything_is_written(tiny, tmp_path):
    with pytest.raises(ValueError, match="jax_enable_x64 = False, expected True"):
        train("concat", out=tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_parameter_counts_are_those_of_the_model_and_of_one_network():
    model = build(TINY["hyper"], key=jr.key(0))
    counts = experiments.parameter_counts(model)
    assert counts == {"model": 2 * 3 + 13 * 3 + 13, "main network": 13}
