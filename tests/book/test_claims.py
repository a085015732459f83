"""Sentences that a new record could make wrong: each claim, in the record's numbers.

The figures in these sentences are computed on their pages. That a sentence as a whole
stays true is looked at here, for what comes from the cards and the records.
"""

import json
import pathlib

import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import paper

DATA = pathlib.Path(__file__).parents[2] / "book" / "data"
SMALL, LARGE, HYPER = (
    f"burgers-{kind}" for kind in ("small-pinn", "large-pinn", "hyperpinn")
)
LORENZ = ("lorenz-hyperpinn", "lorenz-small", "lorenz-large")


def record(name):
    return json.loads((DATA / f"{name}.json").read_text("utf-8"))


def papers(name):
    return paper.EXPERIMENTS[name].paper_mse


def runs(name, recipe="best"):
    """By seed: what the record of Burgers' equation has of one model."""
    found = {
        run["seed"]: run
        for run in record("burgers-runs")["runs"]
        if (run["name"], run["recipe"]) == (name, recipe)
    }
    assert found
    return found


def seconds(name):
    return sum(stage["seconds"] for stage in hpx.load_card(name)["stages"])


# --- Burgers' equation ----------------------------------------------------------------


def test_the_hyperpinn_is_ahead_of_the_large_pinn_and_that_of_the_small_one():
    small, large, hyper = (
        hpx.load_card(name)["error"]["mse"] for name in (SMALL, LARGE, HYPER)
    )
    assert hyper < large < small < papers(HYPER)


def test_the_large_pinn_trained_longer_than_the_hyperpinn():
    assert seconds(LARGE) > seconds(HYPER)


@pytest.mark.parametrize("name", (SMALL, LARGE, HYPER))
def test_all_three_are_far_below_the_paper(name):
    assert hpx.load_card(name)["error"]["mse"] < papers(name) / 100


def test_the_recipe_of_the_paper_ends_far_above_the_paper():
    alone = [r for r in record("burgers-runs")["runs"] if r["recipe"] == "paper"]
    assert len(alone) >= 2
    assert all(run["mse"] > 5 * papers(run["name"]) for run in alone)


def test_each_part_of_the_symmetry_helps_and_none_is_needed_to_pass_the_paper():
    odd, wall, plain = (
        [run["mse"] for run in runs(name).values()]
        for name in (HYPER, f"{HYPER}-wall", f"{HYPER}-plain")
    )
    assert max(odd) < min(wall) < max(wall) < min(plain)
    assert max(plain) < papers(HYPER)
    # Most of it at the smallest viscosities.
    for run in runs(f"{HYPER}-plain").values():
        share = np.array(run["mse_per_nu"]) / np.sum(run["mse_per_nu"])
        assert share[:3].sum() > 0.8


def test_seeds_agree_on_the_order_of_magnitude():
    each = [run["mse"] for run in runs(HYPER).values()]
    assert len(each) == 3 and max(each) < 10 * min(each)


def test_the_error_is_largest_at_the_smallest_viscosities():
    assert np.argmax(hpx.load_card(HYPER)["error"]["mse_per_nu"]) < 3


def test_a_network_of_its_own_does_better_most_of_all_at_large_viscosities():
    floor = record("burgers-floor")
    alone = np.array(floor["networks"]["odd in x"]["mse"])
    error = hpx.load_card(HYPER)["error"]
    family = np.exp(
        np.interp(np.log(floor["nu"]), np.log(error["nu"]), np.log(error["mse_per_nu"]))
    )
    gain = family / alone
    assert (gain > 1).mean() > 0.8
    assert np.median(gain[:4]) > np.median(gain[-4:])


def test_the_main_network_is_faster_and_more_so_at_many_points():
    prediction = record("prediction")["prediction"]
    one, many = (
        prediction[n]["fastest"][LARGE] / prediction[n]["fastest"][HYPER]
        for n in ("1", "10000")
    )
    assert 1 < one < many


# --- The Lorenz system ----------------------------------------------------------------


def test_the_shipped_models_are_at_the_floor_and_the_paper_is_not_far_above():
    rows = record("lorenz-table")["rows"]
    floor = np.mean(rows["exact, biased"]["mse"])
    for name in LORENZ:
        assert hpx.load_card(name)["error"]["mse_mean"] < 1.5 * floor
    assert floor < papers("lorenz-hyperpinn") < 2 * floor


def test_our_small_baseline_is_below_the_papers_hyperpinn():
    error = hpx.load_card("lorenz-small")["error"]["mse_mean"]
    assert error < papers("lorenz-hyperpinn")


# --- What the page of results says that we chose --------------------------------------


def test_how_the_shipped_hypernetworks_start():
    assert paper.EXPERIMENTS[HYPER].init == "common"


def test_what_was_trained_from_three_seeds():
    seeds = {run["seed"] for run in record("lorenz-seeds")["runs"]}
    assert len(runs(HYPER)) == len(seeds) == 3
    for name in (f"{HYPER}-wall", f"{HYPER}-plain"):
        assert len(runs(name)) == 3
