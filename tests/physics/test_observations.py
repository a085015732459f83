"""Observations as a term of the loss: physics and data, or data alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hyperpinn_eqx as hpx


def seen(getkey, problem, n_lam=3, n=20, **options):
    lam = hpx.log_uniform(problem.parameters, n_lam, key=getkey())
    points = hpx.uniform(problem.domain, (n_lam, n), key=getkey())
    rows = [
        problem.exact(*np.asarray(p, float).T, float(x[0]))
        for p, x in zip(points, lam, strict=True)
    ]
    values = np.stack([np.stack(np.broadcast_arrays(*r), -1) for r in rows])
    return lam, points, values


def exact_model(problem):
    def model(lam):
        return lambda p: jnp.stack(problem.exact(*p, lam[0]))

    return model


def test_the_exact_solution_misses_no_observation(getkey):
    problem = hpx.Kovasznay()
    lam, points, values = seen(getkey, problem)
    data = hpx.Observations(lam, points, values[..., :2], fields=("u", "v"))
    loss = hpx.PINNLoss(problem, data, n_lam=4, n_points=5, adaptive=False)
    model = hpx.HyperPINN(
        hpx.MainNetSpec((2, 4, 3), problem.domain),
        problem.parameters,
        (4,),
        key=getkey(),
    )
    batch = loss.sample(model, key=getkey())
    assert batch.lam.shape == (7, 1)
    found = loss(exact_model(problem), batch)
    assert [*found.terms] == ["physics", "edge", "origin", "observations"]
    assert found.terms["observations"] < 1e-10
    # All of these have a weight, and the mean is over those that were made.
    off = hpx.Observations(lam, points, values[..., :2] + 0.5, fields=("u", "v"))
    loss = hpx.PINNLoss(problem, off, n_lam=4, n_points=5, adaptive=False)
    batch = loss.sample(model, key=getkey())
    term = loss(exact_model(problem), batch).terms["observations"]
    assert jnp.allclose(term, 0.25, rtol=1e-4)


def test_the_unit_of_the_noise_does_not_matter_but_its_ratios_do(getkey):
    problem = hpx.Kovasznay()
    lam, points, values = seen(getkey, problem)
    one, two = (hpx.Observations(lam, points, values, s) for s in (0.1, 7.0))
    assert jnp.allclose(one.weights, two.weights)
    sigma = np.ones(values.shape)
    sigma[0] = 2
    weights = hpx.Observations(lam, points, values, sigma).weights
    assert jnp.allclose(weights[1] / weights[0], 2)
    assert jnp.allclose(jnp.mean(weights**2), 1)


def test_what_is_missing_does_not_count(getkey):
    problem = hpx.Kovasznay()
    lam, points, values = seen(getkey, problem)
    values[0, :5] = np.nan
    data = hpx.Observations(lam, points, values)
    assert jnp.all((data.weights == 0) == np.isnan(values))
    assert jnp.all(jnp.isfinite(data.values))


def test_data_alone_train_a_family(getkey):
    problem = hpx.AllenCahn()
    lam = hpx.log_uniform(problem.parameters, 6, key=getkey())
    points = hpx.uniform(problem.domain, (6, 30), key=getkey())
    values = jax.vmap(lambda p, x: problem.exact(p[:, 0], p[:, 1], x[0]))(points, lam)
    weights = {"physics": 0.0, "start": 0.0, "walls": 0.0}
    data = hpx.Observations(lam, points, values)
    loss = hpx.PINNLoss(problem, data, weights=weights)
    model = hpx.HyperPINN(
        hpx.MainNetSpec((2, 8, 1), problem.domain),
        problem.parameters,
        (8,),
        key=getkey(),
    )
    batch = loss.sample(model, key=getkey())
    assert batch.lam.shape == (6, 1)
    assert [*batch.items] == ["observations"]
    options = {"steps": 300, "key": getkey(), "progress": False}
    result = hpx.fit(model, loss, optax.adam(1e-2), **options)
    assert result.history["total"][-1] < 0.2 * loss(model, batch).total


@pytest.mark.parametrize(
    "change",
    [
        {"fields": ("u", "w")},
        {"fields": ("u",)},
        {"values": np.full((3, 20, 3), np.nan)},
        {"lam": np.ones((3, 2))},
    ],
    ids=["unknown", "too few", "nothing", "parameters"],
)
def test_what_does_not_fit_is_an_error(change, getkey):
    problem = hpx.Kovasznay()
    lam, points, values = seen(getkey, problem)
    given = {"lam": lam, "points": points, "values": values} | change
    with pytest.raises(ValueError, match=r"field|values|parameters"):
        hpx.PINNLoss(problem, hpx.Observations(**given))
