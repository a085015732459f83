import concurrent.futures
import copy
import dataclasses
import gc
import importlib
import inspect
import itertools
import multiprocessing
import os
import pickle
import pkgutil
import signal
import sys
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Loss, TrainingStopped, fit
from hyperpinn_eqx.training.journal import Journal, Stopped
from hyperpinn_eqx.training.run import History


def square(x, key):
    return Loss({"near": (x - 3) ** 2, "small": 0.0 * x})


def noisy(x, key):
    return Loss({"noisy": (x - jr.normal(key)) ** 2})


def run(x=0.0, loss=square, *, optimiser=None, steps=20, **options):
    options = {"key": jr.key(0), "progress": False} | options
    optimiser = optax.sgd(0.1) if optimiser is None else optimiser
    model = x if isinstance(x, eqx.Module) else jnp.asarray(x)
    return fit(model, loss, optimiser, steps=steps, **options)


def test_it_minimises_a_square():
    result = run(optimiser=optax.adam(0.1), steps=300)
    np.testing.assert_allclose(result.model, 3, atol=1e-3)


def test_gradient_descent_takes_the_steps_it_should(x64):
    # x ← x - 0.2 (x - 3), from 0: the distance shrinks by 0.8 a step.
    result = run(steps=7, chunk=3)
    np.testing.assert_allclose(result.model, 3 - 3 * 0.8**7, rtol=1e-14)


def test_it_fits_a_network_with_static_parts(getkey):
    x = jnp.linspace(-1, 1, 16)[:, None]
    net = eqx.nn.MLP(1, 1, 8, 1, activation=jnp.tanh, key=getkey())

    def loss(net, key):
        return Loss({"data": jnp.mean((jax.vmap(net)(x) - x**2) ** 2)})

    result = fit(net, loss, optax.adam(1e-2), steps=500, key=getkey(), progress=False)
    assert result.model.activation is jnp.tanh
    assert loss(result.model, None).total < 1e-2


def test_the_history_has_the_mean_of_every_term_over_every_chunk(x64):
    result = run(steps=7, chunk=3)
    losses = np.array([(3 * 0.8**i) ** 2 for i in range(7)])
    means = [losses[:3].mean(), losses[3:6].mean(), losses[6]]
    assert set(result.history) == {"step", "seconds", "total", "near", "small"}
    np.testing.assert_array_equal(result.history["step"], [3, 6, 7])
    np.testing.assert_allclose(result.history["total"], means, rtol=1e-14)
    np.testing.assert_allclose(result.history["near"], means, rtol=1e-14)
    np.testing.assert_array_equal(result.history["small"], np.zeros(3))


def test_the_key_decides_the_result():
    first, again, other = (
        run(loss=noisy, key=jr.key(seed)).model for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_every_step_draws_anew():
    one, two = (run(loss=noisy, steps=steps, chunk=1) for steps in (1, 2))
    drawn = [one.model / 0.2, (two.model - 0.8 * one.model) / 0.2]
    assert abs(drawn[0] - drawn[1]) > 1e-3


@pytest.mark.parametrize("chunk", [1, 3])
def test_the_result_does_not_depend_on_the_chunk(chunk, x64):
    expected = run(loss=noisy, steps=10, chunk=10).model
    np.testing.assert_allclose(
        run(loss=noisy, steps=10, chunk=chunk).model, expected, rtol=1e-12
    )


def test_the_optimisers_state_crosses_chunks(x64):
    adam, schedule = optax.adam, optax.cosine_decay_schedule(0.1, 10)
    whole = run(optimiser=adam(schedule), steps=10, chunk=10).model
    parts = run(optimiser=adam(schedule), steps=10, chunk=2).model
    np.testing.assert_allclose(parts, whole, rtol=1e-13)


def test_progress_shows_the_loss(capsys):
    run(steps=4, chunk=2, progress=True, what="squares")
    shown = capsys.readouterr().err
    for part in ("squares", "4/4", "total=", "near="):
        assert part in shown


def test_without_progress_nothing_is_shown(capsys):
    run()
    assert capsys.readouterr() == ("", "")


def grows_until_nan(x, key):
    # Finite for x < 2, and every step adds 0.5.
    return Loss({"bad": jnp.where(x < 2, -5 * x, jnp.nan), "good": 0 * x})


def test_a_nan_stops_with_the_last_good_model():
    with pytest.raises(TrainingStopped) as caught:
        run(loss=grows_until_nan, steps=10, chunk=2)
    # Steps 1 and 2, 3 and 4 see 0, 0.5, 1, 1.5; then the model is 2.
    assert caught.value.reason == "the loss term 'bad' became nan at step 5"
    assert str(caught.value).startswith(caught.value.reason)
    result = caught.value.result
    assert result.model == 2
    np.testing.assert_array_equal(result.history["step"], [2, 4])
    assert np.all(np.isfinite(result.history["bad"]))


def test_a_gradient_that_is_infinite_is_found_after_its_step():
    # The loss at 0 is finite, its slope is not: the first step ruins the weights.
    def rooted(x, key):
        return Loss({"root": jnp.sqrt(x)})

    for steps, chunk in ((1, 1), (5, 1), (5, 5)):
        with pytest.raises(TrainingStopped) as caught:
            run(loss=rooted, steps=steps, chunk=chunk)
        assert caught.value.reason == "the weights became inf after step 1"
        assert caught.value.result.model == 0


def test_weights_that_no_loss_sees_are_looked_at_too():
    def loss(model, key):
        seen, unseen = model
        # Without a value of its own, but with a slope that is NaN.
        return Loss({"near": (seen - 3) ** 2 + 0 * jnp.sqrt(unseen - unseen)})

    with pytest.raises(TrainingStopped, match="the weights became nan after step 1"):
        run([0.0, 1.0], loss, steps=10, chunk=10)


def test_a_sum_that_overflows_is_found():
    def loss(x, key):
        return Loss({"one": 2e38 + 0 * x, "two": 2e38 + 0 * x})

    with pytest.raises(TrainingStopped, match="'total' became inf at step 1"):
        run(loss=loss)


def at_step(number):
    """Whether a key is that of one step of `run`."""
    wanted = jr.key_data(jr.fold_in(jr.key(0), number - 1))
    return lambda key: jnp.all(jr.key_data(key) == wanted)


@pytest.mark.parametrize(
    ("bad", "where", "term"),
    [
        (np.nan, "lam", "data"),
        (np.inf, "lam", "physics"),
        (np.inf, "targets", "data"),
        (np.nan, "residual", "physics"),
    ],
)
def test_what_spoils_one_batch_is_told_by_step_and_term(bad, where, term, heat, hyper):
    class Spoilt(type(heat)):
        scale: jax.Array

        def initial(self, tx, lam):
            return super().initial(tx, lam) * (self.scale if where == "targets" else 1)

        def residual(self, u, tx, lam):
            r = super().residual(u, tx, lam)
            return r * (self.scale if where == "residual" else 1)

    edge, is_bad = jnp.array([[0.0, 0.5]]), at_step(4)

    def loss(model, key):
        scale = jnp.where(is_bad(key), bad, 1.0)
        lam = jnp.array([[0.1], [0.5]]) * (scale if where == "lam" else 1)
        batch = hpx.Batch(lam, jnp.full((2, 3, 2), 0.3), edge, edge)
        return hpx.pinn_loss(model, Spoilt(scale), batch)

    with pytest.raises(TrainingStopped) as caught:
        run(hyper, loss, steps=8, chunk=3)
    assert f"the loss term {term!r} became" in caught.value.reason
    assert caught.value.reason.endswith("at step 4")
    result = caught.value.result
    np.testing.assert_array_equal(result.history["step"], [3])
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(result.model))
    assert not eqx.tree_equal(result.model, hyper)


def test_the_journal_of_a_spoilt_training_holds_the_last_good_state(
    unstopped, tmp_path
):
    path, is_bad = tmp_path / "journal", at_step(8)

    def spoilt(x, key):
        return Loss({"noisy": noisy(x, key).total / jnp.where(is_bad(key), 0, 1)})

    with pytest.raises(TrainingStopped, match="'noisy' became inf at step 8") as caught:
        run(**LONG | {"loss": spoilt}, journal=Journal(path, {}, every=0.0))
    journal = Journal(path, {}, resume=True)
    (_, (saved, _)), step, rows = journal.restore("fit", STATE)
    assert (step, len(rows)) == (6, 2)
    assert saved == caught.value.result.model
    # Without the fault it goes on from there, as if there had never been one.
    resumed = run(**LONG, journal=journal)
    np.testing.assert_array_equal(resumed.history["step"], [3, 6, 9, 10])
    np.testing.assert_allclose(resumed.model, unstopped.model, rtol=1e-5)


def test_weights_that_are_spoilt_never_reach_the_journal(tmp_path):
    def rooted(x, key):
        return Loss({"root": jnp.sqrt(x)})

    with pytest.raises(TrainingStopped):
        run(loss=rooted, journal=Journal(tmp_path / "journal", {}, every=0.0))
    assert not (tmp_path / "journal").exists()


def regression(dtype, getkey):
    """A network of a given type, and a loss on data of the default one."""
    net = hpx.cast(eqx.nn.MLP(1, 1, 4, 1, activation=jnp.tanh, key=getkey()), dtype)
    x = jnp.linspace(-1, 1, 16)[:, None]

    def loss(net, key, x=x):
        return Loss({"data": jnp.mean((jax.vmap(net)(x) - x**2) ** 2)})

    return net, loss, x


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_training_works_in_both_precisions(dtype, getkey, x64):
    net, loss, x = regression(dtype, getkey)
    x = x.astype(dtype)
    result = run(net, lambda net, key: loss(net, key, x), optimiser=optax.adam(1e-2))
    history = result.history["data"]
    run_on = run(result.model, lambda net, key: loss(net, key, x), steps=200)
    assert run_on.history["data"][-1] < history[0]
    leaves = jax.tree.leaves(eqx.filter(run_on.model, eqx.is_inexact_array))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("weights", [jnp.float32, jnp.float64])
def test_weights_and_loss_of_two_precisions_are_an_error(weights, getkey, x64):
    other = {jnp.float32: jnp.float64, jnp.float64: jnp.float32}[weights]
    net, loss, x = regression(weights, getkey)

    def mixed(net, key):
        return Loss({"data": loss(net, key, x.astype(weights)).total.astype(other)})

    names = jnp.dtype(other).name, jnp.dtype(weights).name
    with pytest.raises(
        ValueError, match="is {}, expected {} .*hpx.cast".format(*names)
    ):
        run(net, mixed)


def test_weights_that_are_not_finite_are_an_error():
    with pytest.raises(ValueError, match=r"model holds nan at \(1,\), expected finite"):
        run([0.0, jnp.nan])


@pytest.mark.parametrize(
    ("loss", "kind", "match"),
    [
        (lambda x, key: x**2, TypeError, r"loss\(model, key\) = .*expected a Loss"),
        (lambda x, key: Loss({}), ValueError, "terms = {}, expected one part or more"),
        (lambda x, key: Loss({"a": x[None]}), ValueError, r"terms\['a'\] .*\(1,\)"),
    ],
)
def test_a_loss_that_is_none_is_an_error(loss, kind, match, unchecked):
    with pytest.raises(kind, match=match):
        run(loss=loss)


@pytest.mark.parametrize(
    "optimiser", [optax.adam, 0.1, (lambda p: p, lambda g: g), None]
)
def test_an_optimiser_that_is_none_is_an_error(optimiser, unchecked):
    with pytest.raises(TypeError, match="optimiser = .*expected a GradientTransf"):
        fit(jnp.zeros(()), square, optimiser, steps=1, key=jr.key(0))


def test_gradients_may_be_accumulated(x64):
    # Twenty steps of two make ten of one: the distance shrinks by 0.8 each.
    result = run(optimiser=optax.MultiSteps(optax.sgd(0.1), 2))
    np.testing.assert_allclose(result.model, 3 - 3 * 0.8**10, rtol=1e-6)


def test_junk_for_a_fit(throw_junk_at, tmp_path):
    def loss(model, key):
        leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
        return Loss({"square": sum(jnp.sum(leaf**2) for leaf in leaves)})

    throw_junk_at(
        hpx.fit,
        examples=12,
        model=jnp.ones(2),
        loss=loss,
        optimiser=optax.sgd(0.1),
        steps=2,
        key=jr.key(0),
        chunk=2,
        progress=False,
        what="fit",
        journal=Journal(tmp_path / "journal", {}, resume=True),
        watch=lambda model, seconds: {"half": 0.5},
    )


class Interrupting(Journal):
    """A journal that gets a signal at the end of a given step."""

    def __init__(self, path, at, number=signal.SIGINT, **options):
        super().__init__(path, {"seed": 0}, **options)
        self.at, self.number = at, number

    def keep(self, stage, step, state, rows):
        if step == self.at:
            os.kill(os.getpid(), self.number)
        super().keep(stage, step, state, rows)


# Adam has a state, the schedule counts, and every step draws points of its own.
LONG = {
    "loss": noisy,
    "optimiser": optax.adam(optax.cosine_decay_schedule(0.1, 10)),
    "steps": 10,
    "chunk": 3,
}

# What such a training keeps: its key, its weights, and the optimiser's state.
STATE = jr.key_data(jr.key(0)), (jnp.zeros(()), LONG["optimiser"].init(jnp.zeros(())))


def same(found, expected):
    assert eqx.tree_equal(found.model, expected.model)
    assert found.history.keys() == expected.history.keys()
    for name in expected.history.keys() - {"seconds"}:
        np.testing.assert_array_equal(found.history[name], expected.history[name])
    assert np.all(np.diff(found.history["seconds"]) > 0)


@pytest.fixture(scope="module")
def unstopped():
    """The training that was never stopped."""
    return run(**LONG)


@pytest.fixture(scope="module")
def begun():
    """The same training after two chunks."""
    return run(**LONG | {"steps": 6})


def stopping_at(step, answer=True):
    """A watch that ends a training of LONG after some step."""
    calls = itertools.count(1)
    return lambda model, seconds: {"stop": answer} if next(calls) * 3 >= step else {}


@pytest.mark.parametrize("yes", [True, np.True_, np.array(True), jnp.array(True)])
def test_a_watch_may_end_a_training(yes, begun):
    result = run(**LONG, watch=stopping_at(6, yes))
    np.testing.assert_array_equal(result.history["step"], [3, 6])
    np.testing.assert_array_equal(result.history["stop"], [np.nan, 1])
    assert result.model == begun.model


@pytest.mark.parametrize("no", [False, np.False_, jnp.array(False)])
def test_a_watch_that_does_not_end_a_training_changes_nothing(no, unstopped):
    result = run(**LONG, watch=lambda model, seconds: {"stop": no})
    assert result.model == unstopped.model


@pytest.mark.parametrize(
    "answer",
    [True, False, None, 3, "stop", ["stop"], 1j]
    + [{"stop": value} for value in (1, 0.0, None, "yes", np.array([True]), [True])],
)
def test_a_watch_says_it_in_one_way_only(answer, unchecked):
    with pytest.raises(TypeError, match="watch.*expected a dict") as caught:
        run(steps=4, chunk=2, watch=lambda model, seconds: answer)
    np.testing.assert_array_equal(caught.value.result.history["step"], [2])


@pytest.mark.parametrize("name", ["step", "seconds", "total", "near"])
def test_a_watch_overwrites_nothing(name):
    with pytest.raises(ValueError, match=f"watch.*{name}.*expected"):
        run(watch=lambda model, seconds: {name: 0.0})


def test_a_training_that_a_watch_has_ended_goes_on_if_it_is_to(unstopped, tmp_path):
    path = tmp_path / "journal"
    ended = run(**LONG, watch=stopping_at(6), journal=Journal(path, {}, every=0.0))
    asked = []

    def once_more(model, seconds):
        asked.append(float(model))
        return {"stop": True}

    again = run(**LONG, watch=once_more, journal=Journal(path, {}, resume=True))
    same(again, ended)
    assert asked == [float(ended.model)]
    on = run(**LONG, journal=Journal(path, {}, resume=True))
    assert on.model == unstopped.model
    np.testing.assert_array_equal(on.history["step"], unstopped.history["step"])


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """An exception that takes no new attributes."""

    why: str = "enough"


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), ZeroDivisionError("by 0"), FrozenError(), SystemExit(2)],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kept", [False, True])
def test_whatever_ends_a_training_leaves_a_result(
    error, kept, begun, unstopped, tmp_path
):
    stop = stopping_at(6)

    def watch(model, seconds):
        if stop(model, seconds):
            raise error
        return {"half": 0.5}

    path = tmp_path / "journal"
    journal = Journal(path, {}, every=0.0) if kept else None
    with pytest.raises(type(error)) as caught:
        run(**LONG, watch=watch, journal=journal)
    assert caught.value is error
    result = error.result
    assert isinstance(result, hpx.FitResult)
    assert result.model == begun.model
    np.testing.assert_array_equal(result.history["step"], [3, 6])
    np.testing.assert_array_equal(result.history["half"], [0.5, np.nan])
    assert result.seconds >= result.history["seconds"][-1] > 0
    if kept:
        resumed = run(**LONG, journal=Journal(path, {}, resume=True))
        assert resumed.model == unstopped.model


def test_an_interrupt_leaves_a_result_with_and_without_a_journal(tmp_path):
    def watch(model, seconds):
        signal.raise_signal(signal.SIGINT)
        return {}

    expected = run(**LONG | {"steps": 3})
    with pytest.raises(KeyboardInterrupt) as caught:
        run(**LONG, watch=watch)
    assert caught.value.result.model == expected.model
    with Journal(tmp_path / "journal", {}) as journal:
        with pytest.raises(Stopped) as caught:
            run(**LONG, watch=watch, journal=journal)
    assert caught.value.result.model == expected.model


def test_an_interrupt_at_any_place_leaves_what_belongs_together():
    def interrupted(at):
        """A training whose model is the number of its steps; and a line of History."""
        lines = itertools.count()

        def trace(frame, event, _):
            if frame.f_code.co_name not in ("add", "_look"):
                return None
            if event == "line" and next(lines) == at:
                raise KeyboardInterrupt
            return trace

        def look(model, seconds):
            return {"half": model / 2}

        options = {"model": lambda state: state, "watch": look}
        before = sys.gettrace()
        try:
            with History(3, "fit", False, jr.key(0), 0, **options) as history:
                sys.settrace(trace)
                for state in (1, 2, 3):
                    history.add(state, 1, {"total": float(state)})
        finally:
            sys.settrace(before)

    models = []
    for at in itertools.count():
        try:
            interrupted(at)
        except KeyboardInterrupt as error:
            result = error.result
        else:
            break
        models.append(result.model)
        steps = result.history.get("total", np.zeros(0))
        np.testing.assert_array_equal(steps, 1 + np.arange(result.model))
    assert set(models) == {0, 1, 2, 3}


@pytest.mark.parametrize("stage", ["gauss_newton", "follow", "distill"])
def test_an_interrupt_of_another_stage_leaves_a_result_too(
    stage, x64, heat, hyper, monkeypatch
):
    keys, path = {"key": jr.key(2), "progress": False}, jnp.ones((2, 25))
    edges = hpx.conditions(heat, 5, 6, key=jr.key(1))
    rows = hpx.PINNRows(heat, *edges, n_points=8)
    lams = jnp.array([[0.5], [0.4], [0.3]])
    run_it, before, shape = {
        "gauss_newton": (
            lambda: hpx.gauss_newton(
                hyper,
                rows,
                lambda model, key: rows.batch(model, key, 2),
                steps=4,
                rank=4,
                **keys,
            ),
            2,
            None,
        ),
        # Two steps for each λ, and the path that they make.
        "follow": (
            lambda: hpx.follow(hyper(0.5), rows, lams, steps=2, first=2, **keys),
            7,
            (2, 25),
        ),
        "distill": (
            lambda: hpx.distill(hyper, lams[:2], path, steps=3, **keys),
            0,
            None,
        ),
    }[stage]
    add, calls = History.add, itertools.count()

    def interrupted(self, *args):
        if next(calls) == before:
            raise KeyboardInterrupt
        add(self, *args)

    monkeypatch.setattr(History, "add", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_it()
    result = caught.value.result
    assert isinstance(result, hpx.FitResult)
    if shape:
        assert result.model.shape == shape and jnp.all(jnp.isfinite(result.model))
    else:
        assert isinstance(result.model, hpx.HyperPINN)
    done = {"gauss_newton": 2, "follow": 2, "distill": 0}[stage]
    assert len(result.history.get("step", [])) == done


def test_a_watch_may_end_gauss_newton(x64, heat, hyper):
    edges = hpx.conditions(heat, 5, 6, key=jr.key(1))
    rows = hpx.PINNRows(heat, *edges, n_points=8)
    result = hpx.gauss_newton(
        hyper,
        rows,
        lambda model, key: rows.batch(model, key, 2),
        steps=9,
        rank=4,
        key=jr.key(2),
        progress=False,
        watch=lambda model, seconds: {"stop": True},
    )
    np.testing.assert_array_equal(result.history["step"], [1])


def errors_of_the_package():
    """Every exception class that a module of the package defines."""
    found = set()
    for module in pkgutil.walk_packages(hpx.__path__, "hyperpinn_eqx."):
        if not module.name.endswith("__main__"):
            found |= {
                value
                for value in vars(importlib.import_module(module.name)).values()
                if inspect.isclass(value)
                and issubclass(value, BaseException)
                and value.__module__ == module.name
            }
    return sorted(found, key=lambda kind: kind.__name__)


def ended_by(kind):
    """An exception of this class, by which a training ended."""

    def watch(model, seconds):
        given = {"result": hpx.FitResult(model, {}, 0.0)}
        # Those of Python itself take one message.
        own = "__init__" in vars(kind)
        names = inspect.signature(kind).parameters if own else ["message"]
        raise kind(*(given.get(name, f"the {name}") for name in names))

    with pytest.raises(kind) as caught:
        run(steps=4, chunk=2, watch=watch)
    return caught.value


def same_error(found, expected):
    assert type(found) is type(expected)
    assert str(found) == str(expected)
    assert vars(found).keys() == vars(expected).keys()
    assert getattr(found, "reason", None) == getattr(expected, "reason", None)
    assert found.result.model == expected.result.model
    np.testing.assert_array_equal(found.result.history["step"], [2])


def test_there_are_exceptions_to_be_tested():
    assert {TrainingStopped, Stopped} <= set(errors_of_the_package())


@pytest.mark.parametrize("kind", errors_of_the_package())
def test_an_exception_comes_out_of_a_pickle_as_it_was(kind):
    error = ended_by(kind)
    same_error(pickle.loads(pickle.dumps(error)), error)
    same_error(copy.deepcopy(copy.copy(error)), error)


def test_exceptions_cross_processes(tmp_path, monkeypatch, getkey):
    job = "def raises(error):\n    raise error\n"
    (tmp_path / "job_of_a_sweep.py").write_text(job)
    monkeypatch.syspath_prepend(tmp_path)
    raises = importlib.import_module("job_of_a_sweep").raises
    errors = [ended_by(kind) for kind in errors_of_the_package()]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        for error in errors:
            found = pool.submit(raises, error).exception(timeout=240)
            same_error(found, error)


@pytest.mark.parametrize("kind", [TrainingStopped, ZeroDivisionError])
def test_an_exception_survives_a_model_that_cannot_be_pickled(kind, getkey):
    net = eqx.nn.MLP(1, 1, 4, 1, activation=lambda x: jnp.tanh(x), key=getkey())

    def loss(net, key):
        bias = net.layers[1].bias
        return Loss({"ends": jnp.sum(bias / (0 if kind is TrainingStopped else 1))})

    def watch(net, seconds):
        raise ZeroDivisionError("by 0")

    with pytest.raises(kind) as caught:
        run(net, loss, watch=watch, steps=2, chunk=1)
    found = pickle.loads(pickle.dumps(caught.value))
    assert type(found) is kind and str(found) == str(caught.value)
    assert eqx.tree_equal(caught.value.result.model.layers[0], net.layers[0])
    assert found.result.model is None
    assert found.result.history.keys() == caught.value.result.history.keys()
    # A result on its own is not to lose its model silently.
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(
            run(net, lambda net, key: Loss({"x": jnp.sum(net.layers[1].bias)}))
        )


def by_optax(optimiser, loss, steps):
    """The training as Optax's manual writes it, with the same keys as `fit`."""

    @jax.jit
    def step(x, state, key):
        def value_fn(x, **others):
            return loss(x, jr.clone(key)).total

        value, grad = jax.value_and_grad(value_fn)(x)
        extra = {"value": value, "grad": grad, "value_fn": value_fn}
        if optimiser is OPTIMISERS["sophia"]:
            extra = {"obj_fn": value_fn}
        if isinstance(optimiser, optax.GradientTransformationExtraArgs):
            updates, state = optimiser.update(grad, state, x, **extra)
        else:
            updates, state = optimiser.update(grad, state, x)
        return optax.apply_updates(x, updates), state

    x, state = jnp.zeros(()), optimiser.init(jnp.zeros(()))
    with jax.numpy_dtype_promotion("standard"):
        for i in range(steps):
            x, state = step(x, state, jr.fold_in(jr.key(0), i))
    return x


CONTRIB = optax.contrib
OPTIMISERS = {
    "lbfgs": optax.lbfgs(),
    "backtracking": optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10, store_grad=True)
    ),
    "polyak": optax.polyak_sgd(),
    "plateau": optax.chain(optax.adam(0.1), CONTRIB.reduce_on_plateau(patience=2)),
    "momo": CONTRIB.momo(),
    "schedule-free": CONTRIB.schedule_free_adamw(0.3),
    "sophia": CONTRIB.sophia(0.1),
    "plain": optax.adam(0.1),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_does_what_it_does_in_a_loop_of_optax(name, x64):
    optimiser = OPTIMISERS[name]
    # The loss of a step is that of its own key, also within a line search.
    expected = by_optax(optimiser, noisy, 7)
    found = run(loss=noisy, optimiser=optimiser, steps=7, chunk=3).model
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "optimiser",
    [
        CONTRIB.sam(optax.sgd(0.1), optax.sgd(0.01)),
        CONTRIB.sam(optax.sgd(0.1), optax.sgd(0.01), opaque_mode=True),
        optax.MultiSteps(optax.polyak_sgd(), 2),
    ],
    ids=["takes no value", "takes a gradient", "accumulates"],
)
def test_an_optimiser_gets_what_it_takes(optimiser):
    result = run(optimiser=optimiser, steps=200, chunk=200)
    np.testing.assert_allclose(result.model, 3, atol=0.01)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_line_search_solves_what_gradient_descent_does_not(dtype, x64):
    # Curvatures of 1 and 1e4: along the flat one sgd would take 1e4 steps.
    target = jnp.array([1.0, 2.0], dtype)

    def valley(x, key):
        a, b = x - target
        return Loss({"valley": a**2 + 1e4 * (b + a) ** 2})

    result = run(jnp.zeros(2, dtype), valley, optimiser=optax.lbfgs(), steps=20)
    assert result.model.dtype == dtype
    np.testing.assert_allclose(result.model, target, rtol=1e-4)


def test_nothing_that_a_loss_holds_is_kept():
    class Data:
        near = 3.0

    def trained(data):
        run(loss=lambda x, key: Loss({"near": (x - data.near) ** 2}))
        return weakref.ref(data)

    held = trained(Data())
    gc.collect()
    assert held() is None


def test_junk_for_results(throw_junk_at):
    result = run(steps=1)
    history, seconds = result.history, result.seconds
    throw_junk_at(hpx.FitResult, model=result.model, history=history, seconds=seconds)
    throw_junk_at(hpx.TrainingStopped, reason="it is over", result=result)


def test_seconds_are_counted():
    assert run().seconds > 0


@pytest.mark.parametrize("name", ["steps", "chunk"])
@pytest.mark.parametrize("value", [0, -1])
def test_no_steps_are_an_error(name, value):
    with pytest.raises(ValueError, match=f"{name} = {value}, .* at least 1"):
        run(**{name: value})


@pytest.mark.parametrize(
    ("at", "number"), [(3, signal.SIGINT), (9, signal.SIGTERM), (10, signal.SIGINT)]
)
def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    at, number, unstopped, tmp_path
):
    path = tmp_path / "journal"
    with Interrupting(path, at, number) as journal:
        with pytest.raises(Stopped, match=f"step {at} of 'fit' is saved"):
            run(**LONG, journal=journal)
    journal = Journal(path, {"seed": 0}, resume=True)
    same(run(**LONG, journal=journal), unstopped)


def test_a_network_in_float64_can_be_stopped_twice(tmp_path, x64, getkey):
    x = jnp.linspace(-1, 1, 16)[:, None]
    net = eqx.nn.MLP(1, 1, 4, 1, activation=jnp.tanh, key=getkey())

    def loss(net, key):
        noise = jr.normal(key, (16, 1))
        return Loss({"data": jnp.mean((jax.vmap(net)(x) - x**2 - noise) ** 2)})

    options = LONG | {"x": net, "loss": loss, "steps": 9}
    path = tmp_path / "journal"
    for at in (3, 6):
        with Interrupting(path, at, resume=True) as journal:
            with pytest.raises(Stopped):
                run(**options, journal=journal)
    journal = Journal(path, {"seed": 0}, resume=True)
    same(run(**options, journal=journal), run(**options))


def test_what_a_killed_training_wrote_last_is_enough(unstopped, tmp_path):
    # As after a power cut: two chunks were kept, and nobody asked for a stop.
    path = tmp_path / "journal"
    run(**LONG | {"steps": 6}, journal=Journal(path, {}, every=0.0))
    journal = Journal(path, {}, resume=True)
    same(run(**LONG, journal=journal), unstopped)


def test_a_resumed_training_counts_the_steps_and_seconds_before(tmp_path, capsys):
    journal = Journal(tmp_path / "journal", {}, every=0.0)
    run(**LONG | {"steps": 6}, journal=journal)
    state, step, rows = journal.restore("fit", STATE)
    rows[-1]["seconds"] = 3600.0
    journal.keep("fit", step, state, rows)
    result = run(**LONG, journal=journal, progress=True)
    assert 3600 < result.history["seconds"][-1] <= result.seconds < 3700
    first, *_, last = capsys.readouterr().err.strip().split("\r")
    assert "6/10" in first
    assert "10/10" in last and "[1:00:0" in last


def test_another_models_journal_is_an_error(tmp_path):
    journal = Journal(tmp_path / "journal", {}, every=0.0)
    run(steps=1, journal=journal)
    with pytest.raises(ValueError, match="another state of 'fit'.*shape"):
        run([1.0, 2.0], lambda x, key: square(x[0], key), journal=journal)


def test_another_key_is_an_error(tmp_path):
    journal = Journal(tmp_path / "journal", {}, every=0.0)
    run(**LONG | {"steps": 3}, journal=journal)
    with pytest.raises(ValueError, match=r"key holds \[0 1\], expected \[0 0\]: the"):
        run(**LONG, key=jr.key(1), journal=journal)


def test_fewer_steps_than_are_done_are_an_error(tmp_path):
    path = tmp_path / "journal"
    run(**LONG | {"steps": 6}, journal=Journal(path, {}, every=0.0))
    with pytest.raises(ValueError, match="steps = 5.*expected"):
        run(**LONG | {"steps": 5}, journal=Journal(path, {}, resume=True))
