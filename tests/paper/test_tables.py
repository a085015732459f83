import functools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, FamilyError
from hyperpinn_eqx.paper import (
    EXPERIMENTS,
    FAMILIES,
    FamilyExperiment,
    burgers,
    families,
    recognise,
)
from hyperpinn_eqx.paper.recognise import load_models, recognise_all
from hyperpinn_eqx.paper.tables import (
    Row,
    burgers_tables,
    error_per_nu,
    evaluate,
    family_tables,
    table_1,
)

recognition = sys.modules["hyperpinn_eqx.paper.recognise"]
OTHERS = ("lorenz-small", "plume-hyperpinn")


@pytest.fixture
def coarse(monkeypatch):
    """Errors on a coarse grid of eight viscosities."""
    coarse = functools.partial(hpx.family_error, n_lam=8, n_t=4, n_x=5)
    monkeypatch.setattr(burgers, "family_error", coarse)
    return coarse


@pytest.fixture
def rows(hyper, concat):
    lam = np.array([0.01, 0.5, 1.0])
    return [
        Row("burgers-small-pinn", concat, FamilyError(lam, lam * 2e-4, lam)),
        Row("mine.eqx", hyper, FamilyError(lam, lam * 4e-7, lam)),
    ]


def baseline(inputs, parameters):
    """A model with weights of zero: what it takes is all that matters."""
    main = hpx.MainNetSpec((len(inputs), 3, 1), inputs)
    key = jax.random.key(0)
    skeleton = eqx.filter_eval_shape(hpx.ConcatPINN, main, parameters, key=key)
    return jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape), skeleton)


def small(problem):
    return baseline(problem.bounds, problem.parameters)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_1_has_the_paper_beside_ours(rows):
    head, rule, first, mine = map(cells, table_1(rows).splitlines())
    assert len(head) == len(rule) == 5
    assert first == ["burgers-small-pinn", "29", "25", "3.0e-04", "1.0e-04"]
    assert mine == ["mine.eqx", "123", "25", "-", "2.0e-07"]
    # Only Burgers models have a number in the paper's table.
    named = [Row(name, rows[0].model, rows[0].error) for name in OTHERS]
    assert [cells(line)[3] for line in table_1(named).splitlines()[2:]] == ["-", "-"]


def test_error_per_nu_takes_every_so_manyth(rows, concat):
    head, _, *lines = map(cells, error_per_nu(rows, every=2).splitlines())
    assert head == ["ν", "burgers-small-pinn", "mine.eqx"]
    assert lines == [["0.0100", "2.0e-06", "4.0e-09"], ["1.0000", "2.0e-04", "4.0e-07"]]
    other = Row("other", concat, FamilyError(*np.ones((3, 3))))
    with pytest.raises(ValueError, match="3 rows"):
        error_per_nu([*rows, other])


def test_shipped_models_and_files_are_evaluated(coarse, tmp_path):
    sizes = ("hyperpinn", "small-pinn", "large-pinn")
    assert [row.name for row in evaluate()] == [f"burgers-{size}" for size in sizes]
    model, path = small(hpx.Burgers()), str(tmp_path / "mine.eqx")
    hpx.save(path, model)
    (row,) = evaluate([path])
    expected = coarse(model, hpx.Burgers())
    np.testing.assert_array_equal(row.error.mse, expected.mse)
    models, _ = load_models(["burgers-hyperpinn"])
    text = burgers_tables(models, EXPERIMENTS)
    assert "| burgers-hyperpinn | 9385 | 393 | 1.9e-05 |" in text
    assert "| 0.0010 |" in text and "| 0.1000 |" in text


def test_models_are_evaluated_with_the_weights_of_the_file_whatever_the_mode():
    names = ["burgers-small-pinn", "lorenz-small"]
    assert jnp.zeros(()).dtype == jnp.float32
    outside = load_models(names)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(outside)} == {jnp.dtype(jnp.float64)}
    with jax.enable_x64(True):
        assert eqx.tree_equal(outside, load_models(names)[0])
    assert all(recognise(model) for model in outside.values())


@pytest.mark.parametrize("name", ["nobody", "../burgers-hyperpinn", "lorenz-small"])
def test_an_unknown_name_or_another_equation_is_an_error(name):
    with pytest.raises(ValueError, match=name):
        evaluate([name])


def test_a_model_without_a_card_belongs_to_the_family_of_its_architecture(hyper):
    for experiment in FAMILIES:
        assert recognise(small(experiment.problem)).problem == experiment.problem
    for name in ("burgers-small-pinn", "lorenz-small"):
        model = hpx.load_pretrained(name)
        assert recognise(model).problem == EXPERIMENTS[name].problem
    assert recognise(hyper) is None and recognise(hyper(0.1)) is None
    names = hpx.pretrained_names()
    for name, experiment in recognise_all(*load_models(names)).items():
        assert experiment.equation == EXPERIMENTS[name].equation


def test_an_architecture_that_is_almost_known_is_not_known():
    domain, nu = hpx.Burgers.domain, hpx.Burgers.parameters
    assert recognise(baseline(domain, nu)).problem == hpx.Burgers()
    for inputs, parameters in (
        (domain, Box(nu=(1e-3, 0.1))),  # the same range, but not logarithmic
        (domain, Box(mu=(1e-3, 0.1, "log"))),  # another name
        (Box(t=(0, 2), x=(-1, 1)), nu),
        (Box(t=(0, 1), x=(-1, 1), y=(-1, 1)), nu),
    ):
        assert recognise(baseline(inputs, parameters)) is None


class Twin(hpx.Burgers):
    """Another equation on the same ranges."""


def test_an_architecture_of_two_equations_is_not_known(monkeypatch):
    twin = FamilyExperiment("twin", Twin(), "u_t + 2 u u_x = nu u_xx")
    known = {**EXPERIMENTS, "twin": twin}
    monkeypatch.setattr(recognition, "EXPERIMENTS", known)
    model = small(hpx.Burgers())
    assert recognise(model) is None
    assert recognise(model, {"name": "twin"}) is twin
    assert recognise(model, {"equation": twin.equation}) is twin


def test_a_card_decides_how_a_model_is_measured():
    known = EXPERIMENTS["burgers-small-pinn"]
    wide = baseline(known.problem.domain, Box(nu=(1e-3, 1.0, "log")))
    named, told = {"name": known.name}, {"equation": known.equation}
    for card in (named, told, {"name": "mine", **told}):
        assert recognise(wide, card).equation == known.equation
    assert recognise(wide, {"name": "mine"}) is None
    # Another equation is not overruled, and no card makes a model of what has other
    # parameters.
    model = small(hpx.Burgers())
    assert recognise(model, {"equation": "u_t + 2 u u_x = nu u_xx"}) is None
    for name in OTHERS:
        assert recognise(model, {"name": name}) is None
        assert recognise(model, {"equation": EXPERIMENTS[name].equation}) is None


def test_the_tables_of_families_tell_the_held_out_errors(monkeypatch):
    transport, wave = hpx.Transport(), hpx.BurgersWave()
    models = {"mine.eqx": small(transport), "wave": small(wave)}
    lams = np.array([[0.5, 0.01, 1.0], [0.25, 0.1, 0.0], [1.0, 0.05, 2.0]])
    errors = {
        transport: FamilyError(lams, np.ones(3), np.array([2e-3, 1e-4, 5e-2])),
        wave: FamilyError(lams[:, :2], np.ones(3), np.array([1.0, 3.0, 2.0])),
    }
    monkeypatch.setattr(
        families, "held_out_error", lambda model, problem: errors[problem]
    )
    names = {"mine.eqx": "transport-hyperpinn", "wave": "burgers-wave-hyperpinn"}
    known = {model: EXPERIMENTS[name] for model, name in names.items()}
    stages = [{"seconds": 20.0}, {"seconds": 12.6}]
    cards = {"mine.eqx": {}, "wave": {"stages": stages}}
    _, summary, first, _ = family_tables(models, known, cards).split("\n\n")
    _, _, mine, ours = map(cells, summary.splitlines())
    count = hpx.count_parameters(models["mine.eqx"])
    # Of the baseline λ's column is gone from the network at every point.
    counts = [str(count), str(count - 3 * 3)]
    assert mine == [
        *("mine.eqx", *counts),
        *("2.0e-03", "2.0e-03", "5.0e-02"),
        *(f"{errors[transport].pooled:.1e}", "-", "-"),
    ]
    assert ours[3:6] == ["1.0e+00", "2.0e+00", "3.0e+00"] and ours[-2] == "33 s"
    # Every eighth λ, in the order of its first parameter.
    _, _, *lines = map(cells, first.splitlines())
    assert lines == [["", "0.25", "0.1", "0", "1.0e-04"]]
