"""What the chapters from Lorenz on say about their records: each claim is looked up."""

import functools
import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest

import hyperpinn_eqx as hpx

DATA = pathlib.Path(__file__).parents[2] / "book" / "data"


@functools.cache
def record(name):
    return json.loads((DATA / f"{name}.json").read_text("utf-8"))


def card(name):
    return hpx.load_card(name)


def training_seconds(name):
    return sum(stage["seconds"] for stage in card(name)["stages"])


# --- HyperPINN for the Lorenz family --------------------------------------------------

MODELS = ("lorenz-hyperpinn", "lorenz-small", "lorenz-large")


@functools.cache
def lorenz_table():
    """The measures of each row by name; the last row is the exact system once more."""
    rows = record("lorenz-table")["rows"]
    return {
        name: SimpleNamespace(
            **{k: np.array(v) for k, v in row.items() if v is not None}
        )
        for name, row in rows.items()
    }


def lorenz_runs(name, key):
    runs = record("lorenz-seeds")["runs"]
    found = [run[key] for run in runs if run["name"] == name]
    assert found
    return np.array(found)


def test_mean_and_median_of_a_forecast_differ_by_orders_of_magnitude():
    for name in MODELS:
        mse = lorenz_table()[name].mse
        assert np.mean(mse) > 100 * np.median(mse)


def test_a_perfect_network_has_a_mean_error_like_that_of_the_trained_ones():
    table = lorenz_table()
    floor = np.mean(table["exact, biased"].mse)
    for name in MODELS[:2]:
        assert 0.8 < np.mean(table[name].mse) / floor < 1.25
    assert np.mean(table["exact, rtol 1e-3"].mse) > floor


def test_two_models_have_reached_the_bias():
    table = lorenz_table()
    bias = table["exact, biased"].field
    for name in MODELS[:2]:
        assert table[name].field == pytest.approx(bias, rel=0.05)
        assert table[f"{name}, unbiased"].field < 0.3 * bias
    assert f"{MODELS[2]}, unbiased" not in table


def test_wrong_behaviour_is_rare_and_the_bias_is_why():
    table = lorenz_table()
    truth = table[list(table)[-1]].behaviours
    right = {name: np.mean(row.behaviours == truth) for name, row in table.items()}
    assert (
        right["lorenz-hyperpinn"]
        == lorenz_runs("lorenz-hyperpinn", "behaviour_right")[0]
    )
    for name in MODELS:
        assert abs(right["exact, biased"] - right[name]) < 0.03
    hyper, small = (right[f"{name}, unbiased"] for name in MODELS[:2])
    assert max(right[name] for name in MODELS) < hyper == small


def test_the_exact_system_disagrees_with_itself_about_the_occupancy():
    table = lorenz_table()
    occupancy = {name: np.median(row.occupancy) for name, row in table.items()}
    (exact,) = (v for name, v in occupancy.items() if name == list(table)[-1])
    assert all(exact > 0.8 * occupancy[name] for name in MODELS)


def test_the_sum_of_the_exponents_shows_the_bias():
    table = lorenz_table()
    for name in MODELS[:2]:
        biased, unbiased = (
            np.median(table[row].lyapunov_sum) for row in (name, f"{name}, unbiased")
        )
        assert unbiased < 0.5 * biased


def test_on_every_seed_two_models_end_at_the_bias():
    bias = lorenz_table()["exact, biased"].field
    for name in MODELS[:2]:
        errors = lorenz_runs(name, "field")
        assert len(errors) == 3
        np.testing.assert_allclose(errors, bias, rtol=0.1)


def test_the_hyperpinn_is_better_on_all_seeds_without_the_bias():
    hyper, small = (lorenz_runs(name, "field_without_bias") for name in MODELS[:2])
    assert len(hyper) == 3 and np.all(hyper < small)


def test_the_large_baseline_comes_third():
    hyper, small, large = (lorenz_runs(name, "field") for name in MODELS)
    assert np.all(large > np.maximum(hyper, small))


def test_by_adam_alone_the_order_is_not_that_of_the_paper():
    hyper, small, large = (lorenz_runs(f"{name}-adam", "field")[0] for name in MODELS)
    assert large < hyper < small


def test_a_free_trunk_looks_as_good_by_the_bias_alone():
    seeds = lorenz_runs("lorenz-hyperpinn-free", "seed")
    fixed_seeds = list(lorenz_runs("lorenz-hyperpinn", "seed"))
    rows = [fixed_seeds.index(seed) for seed in seeds]
    free, fixed = (
        lorenz_runs(name, "field_without_bias")
        for name in ("lorenz-hyperpinn-free", "lorenz-hyperpinn")
    )
    assert list(seeds) == [0, 1] and rows == [0, 1]
    assert np.all(free > 1.5 * fixed[rows])
    bias = lorenz_table()["exact, biased"].field
    biased = lorenz_runs("lorenz-hyperpinn-free", "field")
    assert np.all(biased < 1.1 * bias)


def test_the_baselines_were_trained_for_less_time_than_the_hyperpinn():
    hyper, small, large = (training_seconds(name) for name in MODELS)
    assert max(small, large) < hyper


# --- The inverse problem --------------------------------------------------------------


def inverse_rows(family):
    return [(name, row) for name, row in record("inverse")[family]["rows"]]


@pytest.mark.parametrize("family", ("burgers", "lorenz"))
def test_all_ways_of_inference_agree(family):
    rows = inverse_rows(family)
    for i, width in enumerate(np.transpose([row["width"] for _, row in rows])):
        assert width.max() < 1.2 * width.min(), i
    # Chance leaves an exact method between 81 and 96 of 100 in 99 of 100 experiments.
    assert all(81 <= n <= 97 for _, row in rows for n in row["covered"])


def test_a_hundred_data_sets_do_not_pay_for_the_training():
    for samples in (200, 16):
        by = {
            name: row["seconds"]
            for name, row in inverse_rows("burgers")
            if row["samples"] == samples
        }
        saved = by["solver"] - by["HyperPINN"]
        assert 100 * saved < training_seconds("burgers-hyperpinn") < 10_000 * saved


def test_the_network_is_more_accurate_than_the_solver_of_the_inverse_problem():
    worst = {name: row["model_error"][1] for name, row in inverse_rows("burgers")}
    assert worst["HyperPINN"] < worst["solver"] < record("inverse")["burgers"]["noise"]


def test_the_exact_field_is_faster_and_the_bias_matters_little():
    by = dict(inverse_rows("lorenz"))
    hyper, unbiased = by["HyperPINN"], by["HyperPINN, unbiased"]
    assert by["exact field"]["seconds"] < hyper["seconds"] < unbiased["seconds"]
    np.testing.assert_allclose(hyper["error"], unbiased["error"], rtol=0.1)


def test_no_solver_is_the_fastest_at_every_viscosity():
    runs = sorted(record("solver")["runs"], key=lambda run: run["nu"])
    seconds = [run["seconds"]["solver"] for run in runs]
    assert seconds == sorted(seconds, reverse=True)
    assert len({run["solver"] for run in runs}) > 1


# --- When not to trust it -------------------------------------------------------------


@functools.cache
def trust():
    return {
        family["name"]: {
            key: np.array(value)
            for key, value in family.items()
            if isinstance(value, list)
        }
        for family in record("trust")["families"]
    }


def split(family):
    outside = family["beyond"] > 0
    return family["error"][~outside].max(), outside


def test_distance_is_not_a_measure_of_error():
    near = []
    for family in trust().values():
        inside, _ = split(family)
        same = np.abs(family["beyond"] - 0.45) < 0.05
        near += list(family["error"][same] / inside)
    assert max(near) > 100 * min(near)


def test_many_of_four_families_are_as_good_outside_and_hardly_one_of_burgers():
    for name, family in trust().items():
        inside, outside = split(family)
        as_good = np.mean(family["error"][outside] <= inside)
        assert as_good < 0.05 if name == "burgers-hyperpinn" else as_good > 0.1


def test_the_residual_of_burgers_is_enormous_at_one_end_only():
    family = trust()["burgers-hyperpinn"]
    _, outside = split(family)
    ratio = (family["residual"] / family["error"])[outside]
    assert ratio.min() < 5 and ratio.max() > 50


def warned(family, indicator):
    inside, outside = split(family)
    bad = family["error"] > 10 * inside
    return bad, family[indicator] > 10 * family[indicator][~outside].max()


def test_the_estimate_finds_all_that_are_bad_but_at_the_limit():
    for family in trust().values():
        bad, found = warned(family, "estimate")
        close = family["error"][bad != found] / (10 * split(family)[0])
        assert np.all((0.7 < close) & (close < 1.2))


def test_the_residual_overlooks_some_and_raises_false_alarms():
    both = [warned(family, "residual") for family in trust().values()]
    assert any(np.any(bad & ~found) for bad, found in both)
    assert max(np.sum(found & ~bad) for bad, found in both) > 10


def test_families_with_several_parameters_tolerate_a_little_extrapolation():
    for name, family in trust().items():
        inside, _ = split(family)
        shares = [
            np.mean(family["error"][near] <= 3 * inside)
            for limit in (0.1, 0.25)
            if np.any(near := (family["beyond"] > 0) & (family["beyond"] <= limit))
        ]
        assert len(shares) == 2
        if name == "burgers-hyperpinn":
            assert max(shares) < 0.3
        elif name == "allen-cahn-hyperpinn":
            assert 0.3 < min(shares) and max(shares) < 0.9
        else:
            assert shares[0] > 0.9 and shares[1] > 0.6


# --- The contest ----------------------------------------------------------------------

WAYS = ("concatenation", "FiLM", "low rank", "last layer", "hypernetwork")


def contest(family, way, key="median"):
    runs = record("contest")["runs"]
    found = [r[key] for r in runs if (r["family"], r["model"]) == (family, way)]
    assert len(found) == 3
    return np.array(found)


def ranking(family):
    return sorted(WAYS, key=lambda way: np.median(contest(family, way)))


def overlap(family, one, other):
    a, b = contest(family, one), contest(family, other)
    return max(a.min(), b.min()) <= min(a.max(), b.max())


def test_on_burgers_low_rank_and_film_lead_and_four_ranges_overlap():
    order = ranking("Burgers")
    assert set(order[:2]) == {"low rank", "FiLM"}
    assert order[2] == "hypernetwork"
    assert order[-1] == "last layer"
    pairs = [(a, b) for i, a in enumerate(order[:4]) for b in order[i + 1 : 4]]
    assert all(overlap("Burgers", *pair) for pair in pairs)


def test_on_transport_the_hypernetwork_leads():
    assert ranking("transport") == [
        *("hypernetwork", "low rank", "FiLM", "concatenation", "last layer")
    ]
    assert overlap("transport", "hypernetwork", "low rank")
    assert not overlap("transport", "hypernetwork", "FiLM")


def test_all_contestants_have_the_same_size():
    sizes = [run["parameters"] for run in record("contest")["runs"]]
    assert max(abs(size / 2300 - 1) for size in sizes) < 0.03


def test_the_hypernetwork_takes_several_times_as_many_steps():
    for family in ("Burgers", "transport"):
        steps = {way: contest(family, way, "gauss_newton_steps") for way in WAYS}
        most = steps.pop("hypernetwork")
        assert min(most) > 2 * max(map(max, steps.values()))


def halfway(way):
    """The error after 15 seconds, at half time and at the end."""
    found = []
    for curve in contest_curves(way):
        seconds, error = np.transpose(curve)
        at = np.interp([15.0, 20.0, 40.0], seconds, np.log(error))
        found.append(np.exp(at))
    return np.median(found, axis=0)


def contest_curves(way):
    runs = record("contest")["runs"]
    return [r["curve"] for r in runs if (r["family"], r["model"]) == ("Burgers", way)]


def test_what_the_hypernetwork_learns_it_learns_in_half_of_the_time():
    early, half, end = halfway("hypernetwork")
    assert half < 1.3 * end
    others = {way: halfway(way) for way in ("FiLM", "low rank", "concatenation")}
    assert half < 1.3 * min(other[1] for other in others.values())
    assert early < 1.3 * min(other[0] for other in others.values())
    assert others["concatenation"][0] > 3 * early
    slowest = others["concatenation"]
    assert slowest[1] > 2 * slowest[2]


def test_small_viscosities_are_hardest_and_there_the_hypernetwork_is_behind():
    nu = np.array(record("contest")["nu"])
    errors = {
        way: np.median(
            [
                run["errors"]
                for run in record("contest")["runs"]
                if (run["family"], run["model"]) == ("Burgers", way)
            ],
            axis=0,
        )
        for way in WAYS
    }
    small = nu < 0.002
    for way, error in errors.items():
        assert error[small].mean() > error[~small].mean()
        if way not in ("hypernetwork", "last layer"):
            assert error[small].mean() < errors["hypernetwork"][small].mean()
    large = [errors[way][nu > 0.03].mean() for way in WAYS if way != "last layer"]
    assert max(large) < 2 * min(large)


# --- Side by side ---------------------------------------------------------------------


def test_our_row_is_the_recipe_and_the_others_are_about_as_long():
    rows = record("jinns-accuracy")["rows"]
    last = {row["method"]: row["curve"][-1] for row in rows}
    seconds, error = last.pop("hyperpinn_eqx")
    assert all(0.9 * seconds < s < 1.5 * seconds for s, _ in last.values())
    assert all(error < e for _, e in last.values())
    stages = [stage["stage"] for stage in card("burgers-hyperpinn")["stages"]]
    assert stages[0] == "Continuation" and len(stages) > 1


def test_a_solver_pays_for_one_solution_and_the_family_for_very_many():
    paid = record("solver")["paid_back"]
    assert all(n is None or n > 1000 for n in paid.values())
    assert record("solver")["training_seconds"] == pytest.approx(
        training_seconds("burgers-hyperpinn"), rel=1e-2
    )


def test_a_gradient_for_each_viscosity_costs_the_same_for_many_of_them():
    times = record("devices")["gradient"]
    each = [row["1 device"] / int(n) for n, row in times.items()]
    assert max(each) < 2 * min(each)


def test_with_the_same_rows_in_all_the_system_costs_the_same():
    rows = record("devices")["step"]["2048 rows in all"]
    solution = [row["of it, the solution"] for row in rows.values()]
    assert max(solution) < 1.3 * min(solution)
    grows = record("devices")["step"]["64 rows for each ν"]
    share = [row["of it, the solution"] / int(n) for n, row in grows.items()]
    assert share == sorted(share) and share[-1] > 4 * share[0]


def last_exponents(kind):
    """The power of the size with which the time grows over the last step."""
    found = {}
    for what, times in record("growth")[kind].items():
        (m, s), (n, t) = list(times.items())[-2:]
        found[what] = np.log(t / s) / np.log(int(n) / int(m))
    return found


def test_exponents_are_those_that_the_exercise_explains():
    gradient, step = last_exponents("gradient"), last_exponents("step")
    assert gradient["points for each ν"] > 1
    assert 1 < gradient["width"] < 2
    assert 1 < step["ν"] < 3 and step["points for each ν"] < 1
