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
        n_data=(4, 6),
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
        lambda models, known: "\n".join(f"| {name} | Lorenz |" for name in models),
    )


def test_the_seed_decides_the_weights(tmp_path):
    def weights(folder, seed):
        folder = tmp_path / folder
        main(["train", "tiny", "--seed", seed, "--out", str(folder)])
        return (folder / "tiny.eqx").read_bytes().split(b"\n", 1)[1]

    assert weights("first", "4") == weights("again", "4")


def test_the_papers_recipe_goes_to_files_of_its_own(tmp_path, capsys):
    assert main(["train", "tiny", "--recipe", "paper", "--out", str(tmp_path)]) == 0
    assert "tiny-paper.eqx and .json" in capsys.readouterr().out
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"tiny-paper.eqx", "tiny-paper.json"}


def test_a_stopped_training_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def stop(*args, **options):
        raise Stopped("SIGINT: step 2 of '1/2 Adam' is saved in tiny.journal")

    command = ["train", "tiny", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(paper, "train", stop)
        assert main(command) == 130
    err = capsys.readouterr().err
    assert "step 2" in err and "--resume" in err
    # Nothing there to go on with: it starts from the beginning.
    assert main([*command, "--resume"]) == 0


def test_evaluate_prints_the_table(capsys):
    assert main(["evaluate", "burgers-hyperpinn"]) == 0
    out, err = capsys.readouterr()
    assert "| burgers-hyperpinn | 9385 | 393 | 1.9e-05 |" in out
    assert err == ""


def test_evaluate_without_a_name_evaluates_every_shipped_model(capsys):
    assert main(["evaluate"]) == 0
    out = capsys.readouterr().out
    for name in hpx.pretrained_names():
        assert f"| {name} |" in out


def test_models_go_to_the_table_of_their_equation(capsys, tmp_path, getkey):
    # Another range of ν is still Burgers' equation, where the card says so.
    wide = hpx.Box(nu=(1e-3, 1.0, "log"))
    main_net = hpx.MainNetSpec((2, 3, 1), hpx.Burgers().domain)
    path = str(tmp_path / "wide.eqx")
    model = hpx.ConcatPINN(main_net, wide, key=getkey())
    hpx.save(path, model, {"equation": paper.BurgersExperiment.equation})
    transport = hpx.Transport()
    main_net = hpx.MainNetSpec((2, 3, 1), transport.domain)
    pulse = str(tmp_path / "pulse.eqx")
    hpx.save(pulse, hpx.ConcatPINN(main_net, transport.parameters, key=getkey()))
    assert main(["evaluate", pulse, path, "lorenz-small"]) == 0
    papers, family = capsys.readouterr().out.split("Beyond the paper")
    assert f"| {path} | 16 | 13 |" in papers and "| lorenz-small | Lorenz |" in papers
    assert f"| {pulse} | 22 | 13 |" in family
    assert f"| {pulse} | c | D | r | relative L2 error |" in family


def test_a_file_of_an_unknown_equation_is_an_error(capsys, tmp_path, heat, getkey):
    main_net = hpx.MainNetSpec((2, 3, 1), heat.domain)
    path = tmp_path / "heat.eqx"
    hpx.save(path, hpx.ConcatPINN(main_net, heat.parameters, key=getkey()))
    assert main(["evaluate", "burgers-hyperpinn", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert str(path) in err and "kappa" in err
    for experiment in paper.EXPERIMENTS.values():
        assert experiment.equation in err


def test_train_writes_a_model_that_can_be_evaluated(capsys, tmp_path):
    assert main(["train", "tiny", "--seed", "5", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "mse = " in out and str(tmp_path) in out
    assert json.loads((tmp_path / "tiny.json").read_text("utf-8"))["seed"] == 5
    assert main(["evaluate", str(tmp_path / "tiny.eqx")]) == 0
    assert "tiny.eqx | 16 | 13 | - |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "nobody"], "name = 'nobody', expected one of "),
        (["train", "nobody"], "name = 'nobody', expected one of "),
        (["evaluate", "nowhere/nothing.eqx"], "nowhere/nothing.eqx"),
    ],
)
def test_a_wrong_name_is_an_error_without_a_traceback(arguments, said, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and said in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train"], ["evaluate", "--fast"]])
def test_a_wrong_command_prints_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m hyperpinn_eqx" in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "hyperpinn_eqx", "evaluate", "nobody"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "name = 'nobody'" in done.stderr
