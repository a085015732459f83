import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.paper import (
    EXPERIMENTS,
    SCHEME,
    WithBias,
    WithoutBias,
    classify,
    confusion,
    lorenz_measures,
    lorenz_tables,
)
from hyperpinn_eqx.paper.lorenz_measures import measure
from hyperpinn_eqx.paper.lorenz_tables import (
    attractor_table,
    confusion_table,
    lorenz_table,
)


class Changed(eqx.Module):
    """The exact family times a factor, and squares: arrays, for one program."""

    factor: jnp.ndarray
    squares: jnp.ndarray

    def __call__(self, lam):
        return lambda x: self.factor * hpx.Lorenz()(lam)(x) + self.squares * x**2


def changed(factor, squares=0.0):
    return Changed(jnp.asarray(factor), jnp.asarray(squares))


@pytest.fixture(scope="module")
def exact(few_lorenz_cases):
    return measure(changed(1.0), *few_lorenz_cases)


@pytest.fixture
def measured_once(exact, monkeypatch):
    """Every row is measured alike; one measurement serves here, with another error."""

    def stub(family, *_, **__):
        field = family if isinstance(family, float) else 1.0
        return eqx.tree_at(lambda row: row.field, exact, field)

    monkeypatch.setattr(lorenz_measures, "measure", stub)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_exact_field_has_no_error(exact, few_lorenz_cases):
    assert exact.field == 0 and np.all(exact.finished)
    np.testing.assert_array_equal(exact.mse, np.zeros(4))
    np.testing.assert_allclose(exact.lyapunov_sum, np.zeros(4), rtol=0, atol=1e-9)
    # Only chaotic cases have Lyapunov times.
    run = few_lorenz_cases[1]
    chaotic = [b == "chaos" for b in classify(run)]
    assert chaotic == [False, False, True, True]
    for values in (exact.valid_time, exact.lyapunov, exact.occupancy, exact.spectrum):
        assert values.shape == (2,)
    (line,) = attractor_table({"exact": exact}, run).splitlines()[2:]
    assert cells(line)[:2] == ["exact", "100%"] and exact.right(run) == 1


def test_a_scaled_field_has_the_error_of_its_scale(few_lorenz_cases):
    row = measure(changed(1 + 2**-7), *few_lorenz_cases)
    np.testing.assert_allclose(row.field, 2**-7, rtol=1e-6)
    assert np.all(row.mse > 0)


def test_a_field_that_blows_up_is_reported_for_every_trajectory(few_lorenz_cases):
    row = measure(changed(1.0, 100.0), *few_lorenz_cases)
    assert not np.any(row.finished) and np.all(np.isnan(row.mse))
    assert row.behaviours == ["failed"] * 4
    last = cells(lorenz_table({"wild": row}, {}).splitlines()[-1])
    assert last[-1] == "4" and last[4] == "nan"


def test_bias_is_added_and_removed_for_every_lambda(x64):
    lam, x = jnp.array([10, 2.0, 20]), jnp.array([1.0, -2, 15])
    f = hpx.Lorenz()(lam)
    biased = eqx.filter_jit(WithBias(hpx.Lorenz())(lam))(x)
    np.testing.assert_allclose(biased, hpx.add_bias(f, SCHEME, 0.01)(x))
    back = eqx.filter_jit(WithoutBias(WithBias(hpx.Lorenz()))(lam))(x)
    assert np.linalg.norm(back - f(x)) < 0.1 * np.linalg.norm(biased - f(x))


def test_the_rows_of_both_tables(measured_once, few_lorenz_cases, unchecked):
    # Only models near the bias are shown without it.
    models = {"near": 1.4, "far": 1.6}
    rows = lorenz_measures.measure_all(models, *few_lorenz_cases)
    names = [cells(line)[0] for line in lorenz_table(rows, {}).splitlines()[2:]]
    floors = ["exact, biased", "exact, rtol 1e-3", "exact, rtol 1e-12"]
    assert names == ["near", "far", "near, unbiased", *floors]
    # Forecasts that share a long run have one row in its table.
    table = attractor_table(rows, few_lorenz_cases[1]).splitlines()[2:]
    names = [cells(line)[0] for line in table]
    floors = ["exact, biased", "exact, another tolerance"]
    assert names == ["near", "far", "near, unbiased", *floors]


def test_models_come_with_their_counts_and_the_papers_error(
    measured_once, few_lorenz_cases, monkeypatch, getkey
):
    for name, value in zip(("test_set", "true_run"), few_lorenz_cases, strict=True):
        monkeypatch.setattr(lorenz_tables, name, lambda value=value: value)
    name = "lorenz-small"
    models = {name: EXPERIMENTS[name].build(key=getkey())}
    text = lorenz_tables.lorenz_tables(models, {name: EXPERIMENTS[name]})
    line = next(map(cells, (t for t in text.splitlines() if t.startswith("| lorenz"))))
    assert line[:2] == [name, "214 / 115"] and line[3] == "39.4"
    assert f"{name}, unbiased" in text and "2 chaotic cases" in text


def test_the_confusion_table_has_truth_in_rows():
    table = confusion(["chaos", "origin"], ["limit cycle", "origin"])
    head, _, *lines = map(cells, confusion_table(table).splitlines())
    assert head == ["truth", "origin", "limit cycle"]
    assert lines == [["origin", "1", "0"], ["chaos", "0", "1"]]
