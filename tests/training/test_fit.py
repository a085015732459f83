import copy
import dataclasses
import gc
import itertools
import os
import pickle
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
    model = jnp.asarray(x) if isinstance(x, float | list) else x
    return fit(model, loss, optimiser, steps=steps, **options)


# Adam has a state, the schedule counts, and every step draws points of its own.
LONG = {
    "loss": noisy,
    "optimiser": optax.adam(optax.cosine_decay_schedule(0.1, 10)),
    "steps": 10,
    "chunk": 3,
}
# What such a training keeps: its key, its weights, and the optimiser's state.
STATE = jr.key_data(jr.key(0)), (jnp.zeros(()), LONG["optimiser"].init(jnp.zeros(())))


@pytest.fixture(scope="module")
def unstopped():
    """The training that was never stopped."""
    return run(**LONG)


@pytest.fixture(scope="module")
def begun():
    """The same training after two chunks."""
    return run(**LONG | {"steps": 6})


def same(found, expected):
    assert eqx.tree_equal(found.model, expected.model)
    assert found.history.keys() == expected.history.keys()
    for name in expected.history.keys() - {"seconds"}:
        np.testing.assert_array_equal(found.history[name], expected.history[name])
    assert np.all(np.diff(found.history["seconds"]) > 0)


# --- Steps --------------------------------------------------------------------------


def test_gradient_descent_takes_the_steps_it_should(x64):
    # x ← x - 0.2 (x - 3), from 0: the distance shrinks by 0.8 a step.
    result = run(steps=7, chunk=3)
    np.testing.assert_allclose(result.model, 3 - 3 * 0.8**7, rtol=1e-14)
    losses = np.array([(3 * 0.8**i) ** 2 for i in range(7)])
    means = [losses[:3].mean(), losses[3:6].mean(), losses[6]]
    history = result.history
    assert set(history) == {"step", "seconds", "total", "near", "small"}
    np.testing.assert_array_equal(history["step"], [3, 6, 7])
    np.testing.assert_allclose(history["total"], means, rtol=1e-14)
    np.testing.assert_allclose(history["near"], means, rtol=1e-14)
    np.testing.assert_array_equal(history["small"], np.zeros(3))
    # Twenty steps of two gradients each make ten.
    both = run(optimiser=optax.MultiSteps(optax.sgd(0.1), 2))
    np.testing.assert_allclose(both.model, 3 - 3 * 0.8**10, rtol=1e-6)


def test_every_step_draws_anew_by_the_key():
    one, two = (run(loss=noisy, steps=steps, chunk=1).model for steps in (1, 2))
    assert abs(one / 0.2 - (two - 0.8 * one) / 0.2) > 1e-3
    again, other = (run(loss=noisy, steps=2, key=jr.key(s)).model for s in (0, 1))
    assert two == again != other


@pytest.mark.parametrize("chunk", [1, 3])
def test_the_result_does_not_depend_on_the_chunk(chunk, x64):
    whole, parts = (run(**LONG | {"chunk": n}).model for n in (10, chunk))
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_object_draws_its_batches_in_the_precision_of_the_weights(
    dtype, hyper, heat_loss
):
    # JAX's mode is float32 here.
    model = hpx.cast(hyper, dtype)
    found = run(model, heat_loss, steps=3)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(found.model)} == {dtype}
    with jax.enable_x64(dtype == "float64"):

        def function(model, key):
            return heat_loss(model, heat_loss.sample(model, key=key))

        expected = run(model, function, steps=3)
    assert set(found.history) == {"step", "seconds", "total", *heat_loss.terms}
    for a, b in zip(
        *(jax.tree.leaves(r.model) for r in (found, expected)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6 if dtype == "float32" else 1e-14)


def test_only_progress_is_shown(capsys):
    run(steps=4, chunk=2, progress=True, name="squares")
    shown = capsys.readouterr().err
    assert all(part in shown for part in ("squares", "4/4", "total=", "near="))
    run()
    assert capsys.readouterr() == ("", "")


def test_nothing_that_a_loss_holds_is_kept():
    class Data:
        near = 3.0

    def trained(data):
        run(loss=lambda x, key: Loss({"near": (x - data.near) ** 2}))
        return weakref.ref(data)

    held = trained(Data())
    gc.collect()
    assert held() is None


# --- Optimisers ---------------------------------------------------------------------


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
    "plateau": optax.chain(optax.adam(0.1), CONTRIB.reduce_on_plateau(patience=2)),
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


# --- Faults -------------------------------------------------------------------------


def grows_until_nan(x, key):
    # Finite for x < 2, and every step adds 0.5.
    return Loss({"bad": jnp.where(x < 2, -5 * x, jnp.nan), "good": 0 * x})


def test_a_nan_stops_with_the_last_good_model():
    with pytest.raises(TrainingStopped, match="'bad' became nan at step 5") as caught:
        run(loss=grows_until_nan, steps=10, chunk=2)
    # Steps 1 and 2, 3 and 4 see 0, 0.5, 1, 1.5; then the model is 2.
    result = caught.value.result
    assert result.model == 2
    np.testing.assert_array_equal(result.history["step"], [2, 4])
    assert np.all(np.isfinite(result.history["bad"]))


def rooted(x, key):
    # At 0 the loss is finite, its slope is not: the first step ruins the weights.
    return Loss({"root": jnp.sqrt(x)})


def unseen(model, key):
    # Without a value of its own, but with a slope that is NaN.
    seen, unseen = model
    return Loss({"near": (seen - 3) ** 2 + 0 * jnp.sqrt(unseen - unseen)})


def overflowing(x, key):
    return Loss({"one": 2e38 + 0 * x, "two": 2e38 + 0 * x})


@pytest.mark.parametrize(
    ("loss", "start", "reason"),
    [
        (rooted, 0.0, "weights became inf after step 1"),
        (unseen, [0.0, 1.0], "weights became nan after step 1"),
        (overflowing, 0.0, "'total' became inf at step 1"),
    ],
)
@pytest.mark.parametrize(("steps", "chunk"), [(1, 1), (5, 1), (5, 5)])
def test_what_is_spoilt_in_a_step_is_found(loss, start, reason, steps, chunk, tmp_path):
    journal = Journal(tmp_path / "journal", {}, every=0.0)
    with pytest.raises(TrainingStopped, match=reason) as caught:
        run(start, loss, steps=steps, chunk=chunk, journal=journal)
    np.testing.assert_array_equal(caught.value.result.model, start)
    assert not journal.path.exists()


def test_the_journal_of_a_spoilt_training_holds_the_last_good_state(
    unstopped, tmp_path
):
    path, eighth = tmp_path / "journal", jr.key_data(jr.fold_in(jr.key(0), 7))

    def spoilt(x, key):
        bad = jnp.all(jr.key_data(key) == eighth)
        return Loss({"noisy": noisy(x, key).total / jnp.where(bad, 0, 1)})

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


# --- Callbacks ----------------------------------------------------------------------


def stopping_at(step, answer=True):
    """A callback that ends a training of LONG after some step."""
    calls = itertools.count(1)
    return lambda model, seconds: {"stop": answer} if next(calls) * 3 >= step else {}


@pytest.mark.parametrize("kind", [bool, np.bool_, np.array, jnp.array])
def test_a_callback_may_end_a_training(kind, begun, unstopped):
    result = run(**LONG, callback=stopping_at(6, kind(True)))
    np.testing.assert_array_equal(result.history["step"], [3, 6])
    np.testing.assert_array_equal(result.history["stop"], [np.nan, 1])
    assert result.model == begun.model
    on = run(**LONG, callback=lambda model, seconds: {"stop": kind(False)})
    assert on.model == unstopped.model


@pytest.mark.parametrize(
    "answer",
    [None, "stop", ["stop"]] + [{"stop": stop} for stop in (1, None, np.array([True]))],
)
def test_a_callback_says_it_in_one_way_only(answer, unchecked):
    with pytest.raises(TypeError, match="callback") as caught:
        run(steps=4, chunk=2, callback=lambda model, seconds: answer)
    np.testing.assert_array_equal(caught.value.result.history["step"], [2])


@pytest.mark.parametrize("name", ["step", "seconds", "total", "near"])
def test_a_callback_overwrites_nothing(name):
    with pytest.raises(ValueError, match=f"callback.*{name}"):
        run(callback=lambda model, seconds: {name: 0.0})


def test_a_training_that_a_callback_has_ended_goes_on_if_it_is_to(unstopped, tmp_path):
    path = tmp_path / "journal"
    ended = run(**LONG, callback=stopping_at(6), journal=Journal(path, {}, every=0.0))
    asked = []

    def once_more(model, seconds):
        asked.append(float(model))
        return {"stop": True}

    again = run(**LONG, callback=once_more, journal=Journal(path, {}, resume=True))
    same(again, ended)
    assert asked == [float(ended.model)]
    on = run(**LONG, journal=Journal(path, {}, resume=True))
    assert on.model == unstopped.model
    np.testing.assert_array_equal(on.history["step"], unstopped.history["step"])


# --- Interrupts ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """An exception that takes no new attributes."""

    why: str = "enough"


@pytest.fixture
def interruptible():
    """A process in the background of a script ignores SIGINT; a test must not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("error", [None, FrozenError(), SystemExit(2)], ids=repr)
def test_whatever_ends_a_training_leaves_a_result(
    error, begun, unstopped, interruptible, tmp_path
):
    path, stop = tmp_path / "journal", stopping_at(6)

    def callback(model, seconds):
        if stop(model, seconds):
            if error is None:
                signal.raise_signal(signal.SIGINT)
            raise error
        return {"half": 0.5}

    with pytest.raises(type(error) if error else KeyboardInterrupt) as caught:
        run(**LONG, callback=callback, journal=Journal(path, {}, every=0.0))
    assert error is None or caught.value is error
    result = caught.value.result
    assert result.model == begun.model
    np.testing.assert_array_equal(result.history["step"], [3, 6])
    np.testing.assert_array_equal(result.history["half"], [0.5, np.nan])
    assert result.seconds >= result.history["seconds"][-1] > 0
    resumed = run(**LONG, journal=Journal(path, {}, resume=True))
    assert resumed.model == unstopped.model


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

        look = {"callback": lambda model, seconds: {"half": model / 2}}
        before = sys.gettrace()
        try:
            with History(3, "fit", False, jr.key(0), 0, int, **look) as history:
                sys.settrace(trace)
                for state in (1, 2, 3):
                    history.add(state, 1, {"total": float(state)})
        except KeyboardInterrupt as error:
            return error.result
        finally:
            sys.settrace(before)

    results = [*itertools.takewhile(bool, map(interrupted, itertools.count()))]
    for result in results:
        steps = result.history.get("total", np.zeros(0))
        np.testing.assert_array_equal(steps, 1 + np.arange(result.model))
    assert {result.model for result in results} == {0, 1, 2, 3}


def test_an_interrupt_of_a_continuation_leaves_the_path_so_far(
    heat_loss, hyper, monkeypatch
):
    add, calls = History.add, itertools.count()

    def interrupted(self, *args):
        # Two steps for each λ, and the path that they make.
        if next(calls) == 7:
            raise KeyboardInterrupt
        add(self, *args)

    monkeypatch.setattr(History, "add", interrupted)
    net, lam = hpx.cast(hyper(0.5), "float64"), [[0.5], [0.4], [0.3]]
    options = {"steps": 2, "first": 2, "key": jr.key(2), "progress": False}
    with pytest.raises(KeyboardInterrupt) as caught:
        hpx.continuation(net, heat_loss, lam, **options)
    result = caught.value.result
    assert len(result.history["step"]) == 2
    np.testing.assert_allclose(result.model.lam, lam[:2], rtol=1e-6)
    assert result.model.weights.shape == (2, 25)
    assert jnp.all(jnp.isfinite(result.model.weights))


@pytest.mark.parametrize("kind", [TrainingStopped, Stopped, ZeroDivisionError])
@pytest.mark.parametrize("picklable", [True, False])
def test_an_exception_comes_out_of_a_pickle_as_it_was(kind, picklable):
    model = {"w": jnp.ones(()), "f": np.tanh if picklable else lambda x: x}

    def loss(net, key):
        return Loss({"ends": net["w"] / (0 if kind is TrainingStopped else 1)})

    def callback(net, seconds):
        raise kind("by 0")

    with pytest.raises(kind) as caught:
        run(model, loss, callback=callback, steps=2, chunk=1)
    error = caught.value
    kept = error.result.model if picklable else None
    for found in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(found) is kind and str(found) == str(error)
        assert vars(found).keys() == vars(error).keys()
        assert getattr(found, "reason", None) == getattr(error, "reason", None)
        assert eqx.tree_equal(found.result.model, kept)
        assert found.result.history.keys() == error.result.history.keys()
    if not picklable:
        # A result on its own is not to lose its model silently.
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pickle.dumps(hpx.FitResult(model, {}, 0.0))


# --- Going on after a stop ----------------------------------------------------------


class Interrupting(Journal):
    """A journal that gets a signal at the end of a given step."""

    def __init__(self, path, at, number=signal.SIGINT, **options):
        super().__init__(path, {}, **options)
        self.at, self.number = at, number

    def keep(self, stage, step, state, rows):
        if step == self.at:
            os.kill(os.getpid(), self.number)
        super().keep(stage, step, state, rows)


@pytest.mark.parametrize(
    "stops", [(3,), (9,), (10,), (3, 6)], ids=lambda stops: str(stops)
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_goes_on_to_the_same_bits(
    stops, number, unstopped, tmp_path
):
    path = tmp_path / "journal"
    for at in stops:
        with Interrupting(path, at, number, resume=True) as journal:
            with pytest.raises(Stopped, match=f"step {at} of 'fit'") as caught:
                run(**LONG, journal=journal)
        assert caught.value.result.history["step"][-1] == at
    same(run(**LONG, journal=Journal(path, {}, resume=True)), unstopped)


def test_what_a_killed_training_wrote_last_is_enough(tmp_path):
    # As after a power cut: two chunks were kept, and nobody asked for a stop.
    for wide, name in ((False, "float32"), (True, "float64")):
        with jax.enable_x64(wide):
            options = LONG | {"x": jnp.zeros(())}
            whole = run(**options)
            assert whole.model.dtype == name
            path = tmp_path / name
            run(**options | {"steps": 6}, journal=Journal(path, {}, every=0.0))
            same(run(**options, journal=Journal(path, {}, resume=True)), whole)


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


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"x": [1.0, 2.0], "loss": lambda x, key: noisy(x[0], key)}, "shape"),
        ({"key": jr.key(1)}, "key"),
        ({"steps": 5}, "steps"),
    ],
)
def test_a_journal_of_another_training_is_an_error(wrong, name, tmp_path):
    path = tmp_path / "journal"
    run(**LONG | {"steps": 6}, journal=Journal(path, {}, every=0.0))
    with pytest.raises(ValueError, match=name):
        run(**LONG | wrong, journal=Journal(path, {}, resume=True))
