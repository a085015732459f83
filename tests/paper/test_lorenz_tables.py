import equinox as eqx
import jax
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
from hyperpinn_eqx.paper.lorenz_tables import lorenz_tables as both_tables


class Scaled(eqx.Module):
    """The exact family, times a factor."""

    factor: float

    def __call__(self, lam):
        return lambda x: self.factor * hpx.Lorenz()(lam)(x)


@pytest.fixture
def exact(few_lorenz_cases):
    return measure(hpx.Lorenz(), *few_lorenz_cases)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_exact_field_has_no_error(exact):
    assert exact.field == 0
    np.testing.assert_array_equal(exact.mse, np.zeros(4))
    assert np.all(exact.finished)


def test_only_chaotic_cases_have_lyapunov_times(exact, few_lorenz_cases):
    chaotic = [b == "chaos" for b in classify(few_lorenz_cases[1])]
    assert chaotic == [False, False, True, True]
    for values in (exact.valid_time, exact.lyapunov, exact.occupancy, exact.spectrum):
        assert values.shape == (2,)


def test_the_sum_rule_holds_for_the_exact_field(exact):
    np.testing.assert_allclose(exact.lyapunov_sum, np.zeros(4), rtol=0, atol=1e-9)


def test_a_scaled_field_has_the_error_of_its_scale(few_lorenz_cases):
    row = measure(Scaled(1.01), *few_lorenz_cases)
    np.testing.assert_allclose(row.field, 0.01, rtol=1e-6)
    assert np.all(row.mse > 0)


def test_a_field_that_blows_up_is_reported_for_every_trajectory(few_lorenz_cases):
    row = measure(lambda lam: lambda x: x**2 + 1, *few_lorenz_cases)
    assert not np.any(row.finished) and np.all(np.isnan(row.mse))
    assert row.behaviours == ["failed"] * 4
    text = lorenz_table({"wild": row}, {})
    assert cells(text.splitlines()[-1])[-1] == "4"
    assert cells(text.splitlines()[-1])[4] == "nan"


def test_bias_is_added_and_removed_for_every_lambda(x64):
    lam, x = jax.numpy.array([10, 2.0, 20]), jax.numpy.array([1.0, -2, 15])
    f = hpx.Lorenz()(lam)
    biased = WithBias(hpx.Lorenz())(lam)
    np.testing.assert_allclose(biased(x), hpx.add_bias(f, SCHEME, 0.01)(x))
    back = WithoutBias(WithBias(hpx.Lorenz()))(lam)
    assert np.linalg.norm(back(x) - f(x)) < 0.1 * np.linalg.norm(biased(x) - f(x))


def test_the_attractor_table_counts_right_behaviours(exact, few_lorenz_cases):
    (line,) = attractor_table({"exact": exact}, few_lorenz_cases[1]).splitlines()[2:]
    assert cells(line)[:2] == ["exact", "100%"]


def test_forecasts_that_share_a_long_run_have_one_row_in_its_table(
    exact, few_lorenz_cases, monkeypatch
):
    monkeypatch.setattr(lorenz_measures, "measure", lambda family, *_, **__: exact)
    rows = lorenz_measures.measure_all({}, *few_lorenz_cases)
    floors = [cells(line)[0] for line in lorenz_table(rows, {}).splitlines()[2:]]
    assert floors == ["exact, biased", "exact, rtol 1e-3", "exact, rtol 1e-12"]
    long = [
        cells(line)[0]
        for line in attractor_table(rows, few_lorenz_cases[1]).splitlines()[2:]
    ]
    assert long == ["exact, biased", "exact, another tolerance"]


def test_the_confusion_table_has_truth_in_rows():
    table = confusion(["chaos", "origin"], ["limit cycle", "origin"])
    head, _, *lines = map(cells, confusion_table(table).splitlines())
    assert head == ["truth", "origin", "limit cycle"]
    assert lines == [["origin", "1", "0"], ["chaos", "0", "1"]]


def test_models_come_with_their_counts_and_the_papers_error(
    exact, few_lorenz_cases, monkeypatch, getkey
):
    # Every row is measured alike; one measurement serves here.
    monkeypatch.setattr(lorenz_measures, "measure", lambda family, *_, **__: exact)
    cases, run = few_lorenz_cases
    monkeypatch.setattr(lorenz_tables, "test_set", lambda: cases)
    monkeypatch.setattr(lorenz_tables, "true_run", lambda: run)
    name = "lorenz-small"
    model = EXPERIMENTS[name].build(key=getkey())
    text = both_tables({name: model}, {name: EXPERIMENTS[name]})
    line = next(map(cells, (t for t in text.splitlines() if t.startswith("| lorenz"))))
    assert line[:2] == [name, "214 / 115"] and line[3] == "39.4"
    for floor in (f"{name}, unbiased", "exact, biased", "rtol 1e-3", "rtol 1e-12"):
        assert floor in text
    assert "2 chaotic cases" in text


def test_only_models_near_the_bias_are_shown_without_it(
    exact, few_lorenz_cases, monkeypatch, unchecked
):
    def stub(family, *_, **__):
        field = family if isinstance(family, float) else 1.0
        return eqx.tree_at(lambda row: row.field, exact, field)

    monkeypatch.setattr(lorenz_measures, "measure", stub)
    models = {"near": 1.4, "far": 1.6}
    rows = lorenz_measures.measure_all(models, *few_lorenz_cases)
    assert "near, unbiased" in rows and "far, unbiased" not in rows


def test_known_long_runs_are_not_made_again(few_lorenz_cases, monkeypatch):
    cases, run = few_lorenz_cases
    monkeypatch.setattr(lorenz_measures, "_follow", None)
    row = measure(hpx.Lorenz(), cases, run, found=run)
    np.testing.assert_array_equal(row.lyapunov, [0, 0])
    assert row.right(run) == 1
