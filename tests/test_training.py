import os
import signal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from hyperpinn_eqx import Loss, TrainingStopped, fit
from hyperpinn_eqx.journal import Journal, Stopped


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
    for part in ("'bad'", "nan", "between steps 4 and 6", "step 4"):
        assert part in str(caught.value)
    np.testing.assert_array_equal(caught.value.result.history["step"], [2, 4])
    assert np.all(np.isfinite(caught.value.result.history["bad"]))


def test_what_a_stopped_run_returns_has_a_finite_loss():
    # Finite losses whose gradient at 0 is infinite: the first step ruins the model.
    def rooted(x, key):
        return Loss({"root": jnp.sqrt(x)})

    for chunk in (1, 5):
        with pytest.raises(TrainingStopped) as caught:
            run(loss=rooted, steps=5, chunk=chunk)
        assert caught.value.result.model == 0


def test_a_model_that_the_last_step_ruins_is_not_returned():
    def rooted(x, key):
        return Loss({"root": jnp.sqrt(x)})

    with pytest.raises(TrainingStopped):
        run(loss=rooted, steps=1)


def test_seconds_are_counted():
    assert run().seconds > 0


@pytest.mark.parametrize("name", ["steps", "chunk"])
@pytest.mark.parametrize("value", [0, -1])
def test_no_steps_are_an_error(name, value):
    with pytest.raises(ValueError, match=f"{name} = {value}, expected at least 1"):
        run(**{name: value})


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
    carry = jnp.zeros(()), LONG["optimiser"].init(jnp.zeros(()))
    carry, step, rows = journal.restore("fit", carry)
    rows[-1]["seconds"] = 3600.0
    journal.keep("fit", step, carry, rows)
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
