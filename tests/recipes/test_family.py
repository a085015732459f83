import functools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import FitResult, train_family
from hyperpinn_eqx.paper import FAMILIES
from hyperpinn_eqx.training.journal import Journal, Stopped
from hyperpinn_eqx.training.result import attach

module = sys.modules["hyperpinn_eqx.recipes.family"]

TINY = {
    "main": (4,),
    "hidden": (4, 3),
    "adam_steps": 20,
    "newton_steps": 8,
    "n_lam": 6,
    "n_points": 16,
    "n_conditions": (8, 8),
    "rank": 8,
    "progress": False,
}


@functools.cache
def trained(problem):
    """A training that nobody stops."""
    with jax.enable_x64(True):
        return train_family(problem, **TINY, key=jr.key(3))


@pytest.mark.parametrize("experiment", FAMILIES, ids=lambda e: e.name)
def test_it_lowers_the_loss_of_any_family(experiment):
    problem = experiment.problem
    result = trained(problem)
    adam, *newton = result.history["total"]
    # One chunk of Adam; and Gauss-Newton stays on one batch for 8 steps.
    assert len(newton) == 8 and np.all(np.diff(newton) <= 0)
    assert newton[-1] < 0.7 * newton[0] and newton[-1] < 0.5 * adam
    assert result.model.main.sizes == (len(problem.domain), 4, 1)
    assert [len(b) for b in result.model.biases] == [4, 3]
    assert result.model.parameters == problem.parameters
    types = {leaf.dtype for leaf in jax.tree.leaves(result.model)}
    assert types == {np.dtype("float64")}
    assert result.seconds > 0


@pytest.mark.parametrize(
    ("stage", "step"), [("adam", 20), ("gauss-newton", 3)], ids=["adam", "newton"]
)
def test_it_goes_on_from_a_journal_to_the_same_bits(
    stage, step, stop_at, tmp_path, x64
):
    whole = trained(hpx.BurgersWave())
    path, config = tmp_path / "wave.journal", {"seed": 3}
    with stop_at(stage, step)(path, config) as journal, pytest.raises(Stopped):
        train_family(hpx.BurgersWave(), **TINY, key=jr.key(3), journal=journal)
    with Journal(path, config, resume=True) as journal:
        result = train_family(hpx.BurgersWave(), **TINY, key=jr.key(3), journal=journal)
    assert eqx.tree_equal(result.model, whole.model)
    np.testing.assert_array_equal(result.history["total"], whole.history["total"])


def rod(time, length, heat, offset, equation):
    """A cooling rod of conductivity k, in units of its author's choice."""

    class Rod(hpx.AbstractPDE):
        domain = hpx.Box(t=(0.0, time), x=(0.0, length))
        parameters = hpx.Box(k=(0.01 * length**2 / time, length**2 / time, "log"))
        derivatives = ("t", "xx")

        def residual(self, u, tx, lam):
            return equation * (u.t - lam * u.xx)

        def initial(self, tx, lam):
            return offset + heat * jnp.sin(jnp.pi * tx[1] / length)

        def boundary(self, tx, lam):
            return offset + 0 * tx[1]

    return Rod()


@pytest.mark.parametrize(
    "units",
    [
        (2.0**10, 1.0, 1.0, 0.0, 1.0),
        (1.0, 2.0**-10, 1.0, 0.0, 1.0),
        (1.0, 1.0, 2.0**9, 2.0**8, 1.0),
        (4.0, 0.5, 2.0**-6, 0.0, 2.0**20),
    ],
    ids=["time", "length", "heat", "all"],
)
def test_in_other_units_it_is_the_same_training(units, x64):
    time, length, heat, offset, _ = units
    one, other = rod(1.0, 1.0, 1.0, 0.0, 1.0), rod(*units)
    first, second = (
        train_family(problem, **TINY, key=jr.key(1)) for problem in (one, other)
    )
    # Powers of two, so that nothing but an offset is rounded.
    for stage in (slice(0, 1), slice(1, None)):
        np.testing.assert_allclose(
            second.history["total"][stage], first.history["total"][stage], rtol=1e-3
        )
    lam, t, x = 0.1, np.linspace(0, 1, 5), np.linspace(0, 1, 7)
    u = hpx.on_grid(first.model(lam), t, x)
    v = hpx.on_grid(second.model(lam * length**2 / time), t * time, x * length)
    np.testing.assert_allclose((v - offset) / heat, u, atol=1e-3)

    lams = np.array([0.02, 0.5])
    told, again = (
        hpx.estimate_error(model, problem, lams=lams, n_points=200, key=jr.key(2))
        for model, problem, lams in (
            (first.model, one, lams),
            (second.model, other, lams * length**2 / time),
        )
    )
    np.testing.assert_allclose(again.mse / heat**2, told.mse, rtol=2e-2)


def test_a_training_that_ends_early_is_in_units_too(monkeypatch, x64):
    original, problem = module.fit, rod(4.0, 0.5, 100.0, 20.0, 1.0)

    def interrupted(*args, **options):
        error = KeyboardInterrupt()
        attach(error, original(*args, **options))
        raise error

    monkeypatch.setattr(module, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        train_family(problem, **TINY, key=jr.key(1))
    spec = caught.value.result.model.main
    assert spec.inputs == problem.domain and spec.outputs.high[0] > 80


def test_float64_is_asked_for(unchecked):
    with pytest.raises(ValueError, match="jax_enable_x64 = False, expected True"):
        train_family(hpx.AllenCahn(), key=jr.key(0))


@pytest.fixture
def asked(monkeypatch):
    """No training: what its parts are asked for."""
    seen = {}

    def fit(model, loss, optimiser, **options):
        seen["fit"] = options
        return FitResult(model, {"total": np.ones(1)}, 1.0)

    def gauss_newton(model, row, draw, **options):
        seen["gauss_newton"] = options | {"rows": row}
        return FitResult(model, {"total": np.ones(1)}, 1.0)

    monkeypatch.setattr(module, "fit", fit)
    monkeypatch.setattr(module, "gauss_newton", gauss_newton)
    return seen


def test_its_settings_reach_its_parts(asked, x64):
    result = train_family(hpx.Plume(), **TINY, key=jr.key(0))
    assert asked["fit"]["steps"] == 20 and asked["gauss_newton"]["steps"] == 8
    assert asked["gauss_newton"]["rank"] == 8
    rows = asked["gauss_newton"]["rows"]
    assert rows.initial.shape == rows.boundary.shape == (8, 3) and rows.n_points == 16
    assert result.seconds == 2 and len(result.history["total"]) == 2


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"problem": hpx.Lorenz()}, TypeError, "problem = Lorenz.*expected a PDE"),
        ({"n_conditions": (8,)}, ValueError, "n_conditions = .8,., expected two numb"),
        ({"n_conditions": 8}, TypeError, "n_conditions = 8, expected a tuple or list"),
        ({"n_conditions": (8, -1)}, ValueError, "n_boundary = -1, expected an integer"),
        ({"adam_steps": 0}, ValueError, "adam_steps = 0, expected an integer of at"),
        ({"newton_steps": 0}, ValueError, "newton_steps = 0, expected an integer of"),
        ({"n_lam": 1}, ValueError, "n_lam = 1, expected an integer of at least 2"),
        ({"main": ()}, ValueError, "main = .., expected 1 or more widths"),
    ],
    ids=str,
)
def test_wrong_settings_are_errors_before_any_training(
    wrong, error, said, asked, x64, unchecked
):
    good = {"problem": hpx.Transport(), **TINY, "key": jr.key(0)}
    with pytest.raises(error, match=said):
        train_family(**good | wrong)
    assert not asked


def test_junk(asked, throw_junk_at, x64):
    good = {"problem": hpx.AllenCahn(), **TINY, "key": jr.key(0), "journal": None}
    names = set(good) - {"n_conditions"}
    throw_junk_at(hpx.train_family, **good, only=sorted(names), examples=15)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("problem.residual", {"problem": hpx.Burgers()}),
        ("main", {"main": (5,)}),
        ("hidden", {"hidden": (4, 4)}),
        ("adam_steps", {"adam_steps": 21}),
        ("n_lam", {"n_lam": 7}),
        ("n_points", {"n_points": 17}),
        ("n_conditions", {"n_conditions": (8, 9)}),
        ("rank", {"rank": 9}),
        ("key", {"key": jr.key(1)}),
    ],
)
def test_a_journal_goes_on_with_the_same_training_only(
    name, change, asked, tmp_path, x64
):
    path = tmp_path / "family.journal"
    good = {"problem": hpx.AllenCahn(), **TINY, "key": jr.key(0)}
    with Journal(path, {}) as journal:
        train_family(**good, journal=journal)
    asked.clear()
    with Journal(path, {}, resume=True) as journal:
        with pytest.raises(ValueError, match=rf"another training: .*\b{name} = "):
            train_family(**good | {"key": jr.key(0)} | change, journal=journal)
        assert not asked
        longer = {"key": jr.key(0), "newton_steps": 9}
        train_family(**good | longer, journal=journal)
        assert [*asked] == ["gauss_newton"]


def test_a_journal_knows_an_equation_that_has_changed(
    asked, tmp_path, x64, monkeypatch
):
    class Decay(hpx.AllenCahn):
        rate = 1.0

        def residual(self, u, tx, lam):
            return u.t - lam * u.xx + self.rate * u.value

    path = tmp_path / "decay.journal"
    with Journal(path, {}) as journal:
        train_family(Decay(), **TINY, key=jr.key(0), journal=journal)
    monkeypatch.setattr(Decay, "rate", 2.0)
    with Journal(path, {}, resume=True) as journal:
        with pytest.raises(ValueError, match="problem.residual"):
            train_family(Decay(), **TINY, key=jr.key(0), journal=journal)
