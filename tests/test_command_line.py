import dataclasses
import functools
import json
import subprocess
import sys

import jax
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import paper
from hyperpinn_eqx.__main__ import main
from hyperpinn_eqx.paper import (
    Adam,
    BurgersExperiment,
    GaussNewton,
    burgers,
    evaluate,
    families,
)
from hyperpinn_eqx.training.journal import Stopped


@pytest.fixture(autouse=True)
def mode():
    """The command line turns float64 on for good; here it is turned off again."""
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    coarse = functools.partial(hpx.family_error, n_lam=8, n_t=4, n_x=5)
    monkeypatch.setattr(burgers, "family_error", coarse)
    experiment = BurgersExperiment(
        "tiny",
        (2, 3, 1),
        None,
        1.0,
        (Adam(3, n_lam=2, n_points=4), GaussNewton(1, n_lam=3, n_points=8)),
        n_conditions=4,
    )
    first = dataclasses.replace(
        experiment, stages=experiment.stages[:1], recipe="paper"
    )
    recipes = {"best": {"tiny": experiment}, "paper": {"tiny": first}}
    monkeypatch.setattr(paper, "RECIPES", recipes)
    coarse = functools.partial(hpx.family_error, n_t=4, n_x=5)
    monkeypatch.setattr(
        families, "family_error", lambda *a, lams, **_: coarse(*a, lams=lams[:8])
    )
    # The Lorenz tables take a minute, and have tests of their own.
    monkeypatch.setitem(
        evaluate._TABLES,
        paper.LorenzExperiment,
        lambda models, known, _: "\n".join(f"| {name} | Lorenz |" for name in models),
    )


def files_in(folder):
    return {file.name for file in folder.iterdir()}


def test_train_writes_a_model_that_can_be_evaluated(capsys, tmp_path):
    assert main(["train", "tiny", "--seed", "5", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "mse = " in told and str(tmp_path) in told
    assert json.loads((tmp_path / "tiny.json").read_text("utf-8"))["seed"] == 5
    assert main(["evaluate", str(tmp_path / "tiny.eqx")]) == 0
    assert "tiny.eqx | 16 | 13 | - |" in capsys.readouterr().out


def test_the_papers_recipe_goes_to_files_of_its_own(tmp_path, capsys):
    assert main(["train", "tiny", "--recipe", "paper", "--out", str(tmp_path)]) == 0
    assert "tiny-paper.eqx" in capsys.readouterr().out
    assert files_in(tmp_path) == {"tiny-paper.eqx", "tiny-paper.json"}


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (Stopped("SIGINT: step 2 is saved"), 130, "--resume"),
        (hpx.TrainingStopped("step 2", hpx.FitResult(0, {}, 0)), 1, "error: "),
        (OSError("step 2: disk full"), 2, "error: "),
    ],
    ids=repr,
)
def test_what_ends_a_training_is_told(error, status, told, capsys, monkeypatch):
    def stop(experiment, *, seed, out, resume):
        assert (seed, str(out), resume) == (7, "there", True)
        raise error

    monkeypatch.setattr(paper, "train", stop)
    command = ["train", "tiny", "--seed", "7", "--out", "there", "--resume"]
    assert main(command) == status
    err = capsys.readouterr().err
    assert "step 2" in err and told in err


def test_a_file_that_it_cannot_resume_stays_as_it_is(tmp_path, capsys):
    path = tmp_path / "tiny.journal"
    path.write_bytes(b"a picture")
    assert main(["train", "tiny", "--resume", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: ")
    assert path.read_bytes() == b"a picture" and files_in(tmp_path) == {path.name}


@pytest.mark.slow
def test_evaluate_without_a_name_evaluates_every_shipped_model(capsys):
    assert main(["evaluate"]) == 0
    out, err = capsys.readouterr()
    assert all(f"| {name} |" in out for name in hpx.pretrained_names()) and err == ""
    assert "| burgers-hyperpinn | 9385 | 393 | 1.9e-05 |" in out


def save(path, problem, *card, parameters=None):
    shape = hpx.MainNetSpec((2, 3, 1), problem.domain)
    box = parameters or problem.parameters
    hpx.save(path, hpx.ConcatPINN(shape, box, key=jax.random.key(0)), *card)
    return str(path)


def test_models_go_to_the_table_of_their_equation(capsys, tmp_path):
    # Another range of ν is still Burgers' equation, where the card says so.
    card = {"equation": paper.BurgersExperiment.equation}
    wide = hpx.Box(nu=(1e-3, 1.0, "log"))
    path = save(tmp_path / "wide.eqx", hpx.Burgers(), card, parameters=wide)
    pulse = save(tmp_path / "pulse.eqx", hpx.Transport())
    assert main(["evaluate", pulse, path, "lorenz-small"]) == 0
    papers, family = capsys.readouterr().out.split("Beyond the paper")
    assert f"| {path} | 16 | 13 |" in papers and "| lorenz-small | Lorenz |" in papers
    assert f"| {pulse} | 22 | 13 |" in family
    assert f"| {pulse} | c | D | r |" in family


def error_of(arguments, capsys):
    """The one line that is told in place of a traceback."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize("command", ["evaluate", "train"])
@pytest.mark.parametrize("name", ["nobody", "nowhere/nothing.eqx"])
def test_a_wrong_name_is_an_error_without_a_traceback(command, name, capsys):
    assert name in error_of([command, name], capsys)


def test_a_file_of_an_unknown_equation_is_an_error(capsys, tmp_path, heat):
    path = save(tmp_path / "heat.eqx", heat)
    err = error_of(["evaluate", "burgers-hyperpinn", path], capsys)
    known = {experiment.equation for experiment in paper.EXPERIMENTS.values()}
    assert all(part in err for part in (path, "kappa", *known))


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train"], ["evaluate", "--fast"]])
def test_a_wrong_command_prints_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m hyperpinn_eqx" in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "hyperpinn_eqx", "evaluate", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "nobody" in done.stderr
