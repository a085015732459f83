import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from hyperpinn_eqx import Loss, TrainingStopped, fit


def square(x, key):
    return Loss({"near": (x - 3) ** 2, "small": 0.0 * x})


def noisy(x, key):
    return Loss({"noisy": (x - jr.normal(key)) ** 2})


def run(x=0.0, loss=square, *, optimiser=None, steps=20, **options):
    options = {"key": jr.key(0), "progress": False} | options
    optimiser = optax.sgd(0.1) if optimiser is None else optimiser
    return fit(jnp.asarray(x), loss, optimiser, steps=steps, **options)


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
    assert set(result.history) == {"step", "total", "near", "small"}
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
