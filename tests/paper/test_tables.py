import functools
import sys

import equinox as eqx
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import FamilyError
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


@pytest.fixture
def coarse(monkeypatch):
    """Errors on a coarse grid of eight viscosities."""
    coarse = functools.partial(hpx.family_error, n_lam=8, n_t=4, n_x=5)
    monkeypatch.setattr(burgers, "family_error", coarse)


@pytest.fixture
def rows(hyper, concat):
    lam = np.array([0.01, 0.5, 1.0])
    return [
        Row("burgers-small-pinn", concat, FamilyError(lam, lam * 2e-4, lam)),
        Row("mine.eqx", hyper, FamilyError(lam, lam * 4e-7, lam)),
    ]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_1_has_the_paper_beside_ours(rows):
    head, rule, small, mine = map(cells, table_1(rows).splitlines())
    assert len(head) == len(rule) == 5
    assert small == ["burgers-small-pinn", "29", "25", "3.0e-04", "1.0e-04"]
    assert mine == ["mine.eqx", "123", "25", "-", "2.0e-07"]


def test_error_per_nu_takes_every_so_manyth(rows):
    head, _, *lines = map(cells, error_per_nu(rows, every=2).splitlines())
    assert head == ["ν", "burgers-small-pinn", "mine.eqx"]
    assert lines == [["0.0100", "2.0e-06", "4.0e-09"], ["1.0000", "2.0e-04", "4.0e-07"]]


def test_every_shipped_model_is_evaluated_in_the_papers_order(coarse):
    assert [row.name for row in evaluate()] == [
        "burgers-hyperpinn",
        "burgers-small-pinn",
        "burgers-large-pinn",
    ]


def test_a_file_can_be_evaluated_by_its_path(coarse, tmp_path, getkey):
    problem = hpx.Burgers()
    main = hpx.MainNetSpec((2, 3, 1), problem.domain)
    model = hpx.ConcatPINN(main, problem.parameters, key=getkey())
    path = str(tmp_path / "mine.eqx")
    hpx.save(path, model)
    (row,) = evaluate([path])
    expected = hpx.family_error(model, problem, n_lam=8, n_t=4, n_x=5)
    np.testing.assert_array_equal(row.error.mse, expected.mse)


def test_both_tables_are_printed(coarse):
    models, _ = load_models(["burgers-hyperpinn"])
    text = burgers_tables(models, EXPERIMENTS)
    assert "| burgers-hyperpinn | 9385 | 393 | 1.9e-05 |" in text
    assert "| 0.0010 |" in text and "| 0.1000 |" in text


@pytest.mark.parametrize("name", ["nobody", "../burgers-hyperpinn"])
def test_an_unknown_name_is_an_error(name):
    with pytest.raises(ValueError, match="expected one of"):
        evaluate([name])


def test_a_name_is_no_list_of_names(unchecked):
    with pytest.raises(TypeError, match="names = 'lorenz', expected a list or tuple"):
        evaluate("lorenz")
    with pytest.raises(TypeError, match="one of names = 1, expected a str"):
        load_models([1])


def test_rows_of_other_viscosities_make_no_table(rows, concat):
    other = Row("other", concat, FamilyError(*np.ones((3, 3))))
    for wrong in ([], [*rows, other]):
        with pytest.raises(ValueError, match="rows, expected one or more, all of the"):
            error_per_nu(wrong)
    with pytest.raises(ValueError, match="every = 0, expected an integer"):
        error_per_nu(rows, every=0)


def test_only_burgers_models_have_a_number_in_the_papers_table(rows):
    named = [Row(name, rows[0].model, rows[0].error) for name in OTHERS]
    assert [cells(line)[3] for line in table_1(named).splitlines()[2:]] == ["-", "-"]


OTHERS = ("lorenz-small", "plume-hyperpinn")


def small(problem, key):
    main = hpx.MainNetSpec((len(problem.domain), 3, 1), problem.domain)
    return eqx.filter_jit(hpx.ConcatPINN)(main, problem.parameters, key=key)


def test_a_model_without_a_card_belongs_to_the_family_of_its_architecture(
    getkey, hyper
):
    for experiment in FAMILIES:
        model = small(experiment.problem, getkey())
        assert recognise(model).problem == experiment.problem
    assert recognise(hyper) is None
    for name in ("burgers-small-pinn", "lorenz-small"):
        model = hpx.load_pretrained(name)
        assert recognise(model).problem == EXPERIMENTS[name].problem


def concat(inputs, parameters, key):
    main = hpx.MainNetSpec((len(inputs), 3, 1), inputs)
    return eqx.filter_jit(hpx.ConcatPINN)(main, parameters, key=key)


def test_an_architecture_that_is_almost_known_is_not_known(getkey):
    domain, nu = hpx.Burgers.domain, hpx.Burgers.parameters
    assert recognise(concat(domain, nu, getkey())) is not None
    for inputs, parameters in (
        (domain, hpx.Box(nu=(1e-3, 1.0, "log"))),  # another range
        (domain, hpx.Box(nu=(1e-3, 0.1))),  # the same range, but not logarithmic
        (domain, hpx.Box(mu=(1e-3, 0.1, "log"))),  # another name
        (hpx.Box(t=(0, 2), x=(-1, 1)), nu),
        (hpx.Box(t=(0, 1), y=(-1, 1)), nu),
        (hpx.Box(t=(0, 1), x=(-1, 1), y=(-1, 1)), nu),
    ):
        assert recognise(concat(inputs, parameters, getkey())) is None
    net = concat(domain, nu, getkey()).net
    assert recognise(net) is None


class Twin(hpx.Burgers):
    """Another equation on the same ranges."""


def test_an_architecture_of_two_equations_is_not_known(getkey, monkeypatch):
    twin = FamilyExperiment("twin", Twin(), "u_t + 2 u u_x = nu u_xx")
    known = {**EXPERIMENTS, "twin": twin}
    monkeypatch.setattr(recognition, "EXPERIMENTS", known)
    model = small(hpx.Burgers(), getkey())
    assert recognise(model) is None
    assert recognise(model, {"name": "twin"}) is twin
    assert recognise(model, {"equation": twin.equation}) is twin


def test_a_card_decides_how_a_model_is_measured(getkey):
    burgers = EXPERIMENTS["burgers-small-pinn"]
    wide = concat(burgers.problem.domain, hpx.Box(nu=(1e-3, 1.0, "log")), getkey())
    for card in (
        {"name": burgers.name},
        {"equation": burgers.equation},
        # A training of one's own.
        {"name": "mine", "equation": burgers.equation},
    ):
        assert recognise(wide, card).equation == burgers.equation
    assert recognise(wide, {"name": "mine"}) is None


def test_the_card_of_another_equation_is_not_overruled(getkey):
    model = small(hpx.Burgers(), getkey())
    assert recognise(model, {"equation": "u_t + 2 u u_x = nu u_xx"}) is None
    # Nor does a card make a model of what has other parameters.
    for name in OTHERS:
        assert recognise(model, {"name": name}) is None
        assert recognise(model, {"equation": EXPERIMENTS[name].equation}) is None


def test_every_shipped_model_is_known_by_its_card():
    names = hpx.pretrained_names()
    for name, experiment in recognise_all(*load_models(names)).items():
        assert experiment.equation == EXPERIMENTS[name].equation


def test_a_model_of_another_equation_has_no_row_among_those_of_burgers():
    with pytest.raises(ValueError, match="lorenz-small"):
        evaluate(["lorenz-small"])


def test_the_tables_of_families_tell_the_held_out_errors(getkey, monkeypatch):
    transport, wave = hpx.Transport(), hpx.BurgersWave()
    models = {"mine.eqx": small(transport, getkey()), "wave": small(wave, getkey())}
    lams = np.array([[0.5, 0.01, 1.0], [0.25, 0.1, 0.0], [1.0, 0.05, 2.0]])
    errors = {
        transport: FamilyError(lams, np.ones(3), np.array([2e-3, 1e-4, 5e-2])),
        wave: FamilyError(lams[:, :2], np.ones(3), np.array([1.0, 3.0, 2.0])),
    }
    monkeypatch.setattr(
        families, "held_out_error", lambda model, problem: errors[problem]
    )
    known = {
        "mine.eqx": EXPERIMENTS["transport-hyperpinn"],
        "wave": EXPERIMENTS["burgers-wave-hyperpinn"],
    }
    title, summary, first, second = family_tables(models, known).split("\n\n")
    assert "65 held-out λ" in title
    _, _, mine, ours = map(cells, summary.splitlines())
    counts = [str(hpx.count_parameters(models["mine.eqx"]))] * 2
    # Of the baseline λ's column is gone from the network at every point.
    counts[1] = str(int(counts[0]) - 3 * 3)
    assert mine == ["mine.eqx", *counts, "2.0e-03", "2.0e-03", "5.0e-02"]
    assert ours[3:] == ["1.0e+00", "2.0e+00", "3.0e+00"]
    # Every eighth λ, in the order of its first parameter.
    assert cells(first.splitlines()[0]) == [
        *("mine.eqx", "c", "D", "r", "relative L2 error")
    ]
    assert list(map(cells, first.splitlines()[2:])) == [
        ["", "0.25", "0.1", "0", "1.0e-04"]
    ]
    assert cells(second.splitlines()[0])[1:3] == ["a", "phi"]
