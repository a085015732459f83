import inspect
import pathlib
import subprocess
import sys

import pytest

import hyperpinn_eqx as hpx

NAMES = [
    name
    for name, value in vars(hpx).items()
    if not name.startswith("_") and not inspect.ismodule(value)
]


def test_there_is_a_public_interface():
    assert {"HyperPINN", "Burgers", "load_pretrained", "jets"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented(name):
    doc = inspect.getdoc(getattr(hpx, name))
    # A dataclass makes up a docstring from its fields.
    assert doc and not doc.startswith(f"{name}(")
    for attribute, value in vars(getattr(hpx, name)).items():
        # A condition has the form of `residual`, and says where it holds.
        condition = hasattr(value, "where")
        if not attribute.startswith("_") and callable(value) and not condition:
            assert inspect.getdoc(getattr(getattr(hpx, name), attribute)), attribute


# What a user makes without arguments, what we make or raise, what checks by hand.
OTHERS = {"Stopped", "TrainingStopped", "LiveFigure", "AbstractPDE", "AbstractODE"}
OTHERS |= {"Jet"}
BY_HAND = {"Box", "shard", "cast", "condition", "count_parameters", "Term", "Path"}


@pytest.mark.parametrize("name", sorted({*NAMES} - OTHERS - BY_HAND))
def test_every_public_name_checks_its_arguments(name):
    value = getattr(hpx, name)
    checked = any(hasattr(f, "converters") for f in (value, value.__init__))
    assert checked or not inspect.signature(value).parameters


@pytest.mark.slow
def test_an_import_makes_no_array_and_no_noise_and_needs_no_matplotlib():
    # So that float64, or a device, can still be chosen after the import.
    code = (
        "import sys, hyperpinn_eqx; from jax._src import xla_bridge;"
        "assert not xla_bridge.backends_are_initialized();"
        "assert 'matplotlib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_package_is_typed():
    assert (pathlib.Path(hpx.__file__).parent / "py.typed").exists()
