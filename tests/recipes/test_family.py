import functools
import sys
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import FitResult, Journal, Stopped, train_family
from hyperpinn_eqx.training.result import attach

module = sys.modules["hyperpinn_eqx.recipes.family"]
held_out = sys.modules["hyperpinn_eqx.recipes.held_out"]
TINY = {
    "main": (4,),
    "hidden": (4, 3),
    "adam_steps": 20,
    "newton_steps": 8,
    "n_lam": 6,
    "n_points": 16,
    "n_conditions": 8,
    "rank": 8,
    "progress": False,
}
trained = functools.cache(lambda problem: train_family(problem, **TINY, key=jr.key(3)))


@pytest.mark.parametrize("problem", [hpx.BurgersWave(), hpx.Plume(), hpx.Kovasznay()])
def test_it_lowers_the_loss_of_any_family(problem):
    result = trained(problem)
    adam, *newton = result.history["total"]
    # One chunk of Adam; and Gauss-Newton stays on one batch for 8 steps.
    assert len(newton) == 8 and np.all(np.diff(newton) <= 0)
    assert newton[-1] < 0.85 * newton[0] and newton[-1] < 0.5 * adam
    assert result.model.main.sizes == (len(problem.domain), 4, len(problem.fields))
    assert result.model.trunk.hidden == [4, 3]
    assert result.model.parameters == problem.parameters
    types = {leaf.dtype for leaf in jax.tree.leaves(result.model)}
    assert types == {np.dtype("float64")}
    assert result.seconds > 0


@pytest.mark.parametrize(("stage", "step"), [("adam", 20), ("gauss-newton", 3)])
def test_it_goes_on_from_a_journal_to_the_same_bits(stage, step, stop_at, tmp_path):
    problem = hpx.Kovasznay()
    whole, path, config = trained(problem), tmp_path / "grid.journal", {"seed": 3}
    with stop_at(stage, step)(path, config) as journal, pytest.raises(Stopped):
        train_family(problem, **TINY, key=jr.key(3), journal=journal)
    with Journal(path, config, resume=True) as journal:
        result = train_family(problem, **TINY, key=jr.key(3), journal=journal)
    assert eqx.tree_equal(result.model, whole.model)
    for name in ("total", "held_out"):
        np.testing.assert_array_equal(result.history[name], whole.history[name])


def test_it_tells_if_the_held_out_loss_stays_large(monkeypatch, recwarn):
    def told(**options):
        recwarn.clear()
        with warnings.catch_warnings(action="always"):
            train_family(hpx.Rod(), **TINY | options, key=jr.key(3))
        return [str(one.message) for one in recwarn]

    names = ["'physics'", *map(repr, hpx.Rod().conditions)]
    (short,) = told()
    assert sum(name in short for name in names) == 1 and "newton_steps" in short
    monkeypatch.setattr(held_out, "PART", 0.0)
    monkeypatch.setattr(held_out, "EVERY", 1)
    monkeypatch.setattr(held_out, "PATIENCE", 10)
    (level,) = told(newton_steps=20)
    assert "hidden" in level and "newton_steps" not in level
    monkeypatch.setattr(module, "_LARGE", np.inf)
    assert not told()


def test_it_stops_when_the_held_out_loss_is_small(monkeypatch):
    monkeypatch.setattr(held_out, "EVERY", 2)
    options = TINY | {"newton_steps": 60}
    whole = train_family(hpx.Rod(), **options, tolerance=0.0, key=jr.key(3))
    column = whole.history["held_out"]
    small = np.nanmin(column[: len(column) // 2])
    short = train_family(hpx.Rod(), **options, tolerance=small, key=jr.key(3))
    last = int(np.flatnonzero(column <= small)[0]) + 1
    assert last < len(column)
    np.testing.assert_array_equal(short.history["held_out"], column[:last])


def test_it_stops_when_the_held_out_loss_is_level(monkeypatch, stop_at, tmp_path):
    every, patience = 2, 3
    monkeypatch.setattr(held_out, "EVERY", every)
    monkeypatch.setattr(held_out, "PATIENCE", patience)
    seen, look = [], held_out.UntilLevel.look

    def looking(self, model):
        value = look(self, model)
        seen.append((value, jax.tree.leaves(model)))
        return value

    monkeypatch.setattr(held_out.UntilLevel, "look", looking)
    # A small network has soon learned what it can.
    options = TINY | {"newton_steps": 400}
    whole = train_family(hpx.Kovasznay(), **options, key=jr.key(3))
    lowest, best = min(seen, key=lambda pair: pair[0])
    assert lowest == np.nanmin(whole.history["held_out"])
    assert eqx.tree_equal(jax.tree.leaves(whole.model), best)
    column = whole.history["held_out"][1:]
    assert len(column) < 400 and np.isnan(whole.history["held_out"][0])
    looked = column[every - 1 :: every]
    np.testing.assert_array_equal(np.isnan(column), np.arange(len(column)) % 2 == 0)
    reference, since = np.inf, 0
    for i, value in enumerate(looked):
        since += 1
        if value < held_out.PART * reference:
            reference, since = value, 0
        assert (since == patience) == (i == len(looked) - 1)
    # Where it stands is part of the journal.
    path = tmp_path / "level.journal"
    with stop_at("gauss-newton", len(column) - 2)(path, {}) as journal:
        with pytest.raises(Stopped):
            train_family(hpx.Kovasznay(), **options, key=jr.key(3), journal=journal)
    with Journal(path, {}, resume=True) as journal:
        result = train_family(
            hpx.Kovasznay(), **options, key=jr.key(3), journal=journal
        )
    np.testing.assert_array_equal(result.history["held_out"][1:], column)
    assert eqx.tree_equal(result.model, whole.model)


def test_in_other_units_it_is_the_same_training(rod):
    # Powers of two, so that nothing but an offset is rounded.
    units = {"time": 4.0, "length": 2.0**-10, "heat": 2.0**9, "offset": 2.0**8}
    one, other = rod(), rod(**units, equation=2.0**20)
    first, second = (train_family(p, **TINY, key=jr.key(1)) for p in (one, other))
    for stage in (slice(0, 1), slice(1, None)):
        np.testing.assert_allclose(
            second.history["total"][stage], first.history["total"][stage], rtol=1e-3
        )
    time, length, heat, offset = units.values()
    lams, t, x = (
        np.array([[0.02, 0.5], [0.5, 0.1]]),
        *map(np.linspace, (0, 0), (1, 1), (5, 7)),
    )
    others = lams * np.array([length**2 / time, heat / time])
    for lam, same in zip(lams, others, strict=True):
        u = hpx.on_grid(first.model(lam), t, x)
        v = hpx.on_grid(second.model(same), t * time, x * length)
        np.testing.assert_allclose((v - offset) / heat, u, atol=1e-3)
    told, again = (
        hpx.estimate_error(model, problem, lams=at, n_points=200, key=jr.key(2)).mse
        for model, problem, at in (
            (first.model, one, lams),
            (second.model, other, others),
        )
    )
    np.testing.assert_allclose(again / heat**2, told, rtol=2e-2)


def test_a_training_that_ends_early_is_in_units_too(monkeypatch, rod):
    original, problem = module.fit, rod(4.0, 0.5, 100.0, 20.0)

    def interrupted(*args, **options):
        error = KeyboardInterrupt()
        attach(error, original(*args, **options))
        raise error

    monkeypatch.setattr(module, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        train_family(problem, **TINY, key=jr.key(1))
    spec = caught.value.result.model.main
    assert spec.inputs == problem.domain and spec.outputs.high[0] > 80


@pytest.fixture
def asked(monkeypatch):
    seen = {}

    def fit(model, loss, *_, **options):
        seen["fit"] = options | {"loss": loss, "model": model}
        return FitResult(model, {"total": np.ones(1)}, 1.0)

    def run(watched, state, **options):
        model = watched.model(state)
        seen["run"] = options | {"loss": watched.newton.loss, "model": model}
        history = {"total": np.ones(1), "held_out": np.ones(1)}
        return FitResult(model, history, 1.0)

    for part in (fit, run):
        monkeypatch.setattr(module, part.__name__, part)
    return seen


def test_its_settings_reach_its_parts(asked):
    weights = {"walls": 3.0}
    result = train_family(hpx.Plume(), **TINY, weights=weights, key=jr.key(0))
    assert result.seconds == 2 and len(result.history["total"]) == 2
    fit, newton = asked["fit"], asked["run"]
    assert (fit["steps"], newton["steps"]) == (20, 8)
    assert fit["model"].head.dtype == jnp.float32
    assert newton["model"].head.dtype == jnp.float64
    for loss in (fit["loss"], newton["loss"]):
        assert loss.n_conditions == 8
        told = {name: term.weight for name, term in loss.terms.items()}
        assert told == {"physics": 1, "start": 1, "walls": 3}
    assert (newton["loss"].n_lam, newton["loss"].n_points) == (6, 16)


def seen_of(problem):
    """The middle of a family, observed at two points."""
    lam, points = problem.parameters.unscale(jnp.zeros((1, 1))), jnp.ones((1, 2, 2))
    return hpx.Observations(lam, points, np.array([[0.25, 0.75]]))


def test_observations_are_a_term_of_both_losses_in_their_units(asked):
    problem = hpx.AllenCahn()
    train_family(problem, seen_of(problem), **TINY, key=jr.key(0))
    for part in ("fit", "run"):
        loss = asked[part]["loss"]
        assert [*loss.terms][-1] == "observations"
        made = loss.problem
        values = np.asarray(loss.observations.values)[0, :, 0]
        physical = made.means[0] + made.halves[0] * values
        np.testing.assert_allclose(physical, [0.25, 0.75], rtol=1e-6)
        np.testing.assert_allclose(
            loss.observations.points, np.tile([0.25, 0.1], (1, 2, 1)), rtol=1e-6
        )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("problem.programs.physics", {"problem": hpx.Burgers()}),
        ("observations", {"observations": seen_of(hpx.AllenCahn())}),
        ("main", {"main": (5,)}),
        ("hidden", {"hidden": (4, 4)}),
        ("scale", {"scale": 2.0}),
        ("weights.start", {"weights": {"start": 2.0}}),
        ("adam_steps", {"adam_steps": 21}),
        ("n_lam", {"n_lam": 7}),
        ("n_points", {"n_points": 17}),
        ("n_conditions", {"n_conditions": 9}),
        ("rank", {"rank": 9}),
        ("key", {"key": jr.key(1)}),
    ],
)
def test_a_journal_goes_on_with_the_same_training_only(name, change, asked, tmp_path):
    path, good = tmp_path / "family.journal", {"problem": hpx.AllenCahn(), **TINY}
    with Journal(path, {}) as journal:
        train_family(**good, key=jr.key(0), journal=journal)
    asked.clear()
    with Journal(path, {}, resume=True) as journal:
        with pytest.raises(ValueError, match=rf"\b{name} = "):
            train_family(**good | {"key": jr.key(0)} | change, journal=journal)
        assert not asked
        longer = {"key": jr.key(0), "newton_steps": 9}
        train_family(**good | longer, journal=journal)
        assert [*asked] == ["run"]
