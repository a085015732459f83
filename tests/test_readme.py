import json
import pathlib
import re

import jax
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import paper
from hyperpinn_eqx.paper import lorenz_tables

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


@pytest.fixture
def as_a_reader_runs_it():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def test_there_is_python_in_the_readme():
    assert BLOCKS


def test_the_readmes_python_runs_from_top_to_bottom(as_a_reader_runs_it, capsys):
    namespace = {}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"README.md, block {number}", "exec"), namespace)
    assert capsys.readouterr().out


# --- Its results are those of the cards and the records -------------------------------

BURGERS = ("burgers-small-pinn", "burgers-large-pinn", "burgers-hyperpinn")
LORENZ = (
    "lorenz-hyperpinn",
    "lorenz-small",
    "lorenz-large",
    "lorenz-hyperpinn, unbiased",
    "exact, biased",
    "exact, rtol 1e-3",
)


def record(name):
    return json.loads((ROOT / f"book/data/{name}.json").read_text("utf-8"))


def between(numbers, form, words="to"):
    return f"{min(numbers):{form}} {words} {max(numbers):{form}}"


def about_burgers():
    for name in BURGERS:
        card, theirs = hpx.load_card(name), paper.EXPERIMENTS[name].paper_mse
        counts = " | ".join(map(str, card["parameters"].values()))
        mse = card["error"]["mse"]
        yield f"| {name} | {counts} | {theirs:.1e} | {mse:.1e} |"
    yield f"is {theirs / mse:,.0f} times smaller than the paper's"
    yield f"its error itself is {(theirs / mse) ** 0.5:.0f} times smaller"

    runs = record("burgers-runs")["runs"]
    told, nothing = (
        [
            r["mse"]
            for r in runs
            if (r["name"], r["recipe"]) == (f"{name}-{kind}", "best")
        ]
        for kind in ("wall", "plain")
    )
    assert len(told) == len(nothing) == 3
    yield (
        f"told u(t, 0) = 0 ends between {between(told, '.1e', 'and')}, and without any "
        f"symmetry between {between(nothing, '.1e', 'and')}, where the paper has "
        f"{theirs:.1e}"
    )

    seeds = [r for r in runs if (r["name"], r["recipe"]) == (name, "best")]
    assert len(seeds) == 3
    first = between([run["seconds_to_the_papers"] for run in seeds], ".0f")
    all_in_all = between([run["seconds"] for run in seeds], ".0f")
    yield f"passes the paper's figure in {first} s and takes {all_in_all} s in all"
    errors = between([run["mse"] for run in seeds], ".1e", "and")
    yield f"three seeds end between {errors}"


def about_speed():
    ratios = [row["ratio"] for row in record("jinns-gradient")["rows"]]
    jinns = between([ratio for ratio in ratios if ratio != 1], ".0f")
    yield f"a training gradient is {jinns} times as fast as with jinns"

    fastest = {n: w["fastest"] for n, w in record("prediction")["prediction"].items()}
    ratios = [
        seconds["burgers-large-pinn"] / seconds["burgers-hyperpinn"]
        for n, seconds in fastest.items()
        if int(n) >= 10_000
    ]
    large = between(ratios, ".0f")
    yield f"at 10 000 points or more {large} times as fast as by the large PINN"


def about_lorenz():
    def loaded(entry):
        arrays = {
            key: np.array(value, bool if key == "finished" else float)
            for key, value in entry.items()
            if isinstance(value, list) and key != "behaviours"
        }
        return lorenz_tables.LorenzRow(**entry | arrays)

    entries = record("lorenz-table")["rows"]
    rows = {name: loaded(entries[name]) for name in LORENZ}
    models = {name: hpx.load_pretrained(name) for name in LORENZ[:3]}
    yield lorenz_tables.lorenz_table(rows, models)


def results():
    """What the README must say, as cards and records have it today."""
    return [*about_burgers(), *about_speed(), *about_lorenz()]


def test_the_readme_says_what_the_records_say():
    missing = [text for text in results() if text not in README]
    assert not missing, "\n".join(["The README should say:", *missing])
