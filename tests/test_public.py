import inspect
import pathlib
import re
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


@pytest.mark.parametrize("name", NAMES)
def test_every_public_method_is_documented(name):
    for attribute, value in vars(getattr(hpx, name)).items():
        if not attribute.startswith("_") and callable(value):
            assert inspect.getdoc(getattr(getattr(hpx, name), attribute)), attribute


# Exceptions are raised by us, and of an equation there are only the user's attributes.
OTHERS = {"Stopped", "TrainingStopped", "AbstractPDE", "AbstractODE", "LiveFigure"}


@pytest.mark.parametrize("name", sorted({*NAMES} - OTHERS))
def test_every_public_name_checks_its_arguments(name):
    value = getattr(hpx, name)
    checked = any(hasattr(f, "converters") for f in (value, value.__init__))
    if inspect.signature(value).parameters and not checked:
        # By hand: then junk is thrown at it.
        folder = pathlib.Path(__file__).parent
        tests = "".join(file.read_text("utf-8") for file in folder.rglob("test_*.py"))
        assert re.search(rf"throw_junk_at\(\s*(hpx\.)?{name}\b", tests)


@pytest.mark.slow
def test_importing_the_package_makes_no_array_and_no_noise():
    # So that float64, or a device, can still be chosen after the import.
    code = (
        "import hyperpinn_eqx; from jax._src import xla_bridge;"
        "assert not xla_bridge.backends_are_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_package_is_typed():
    assert (pathlib.Path(hpx.__file__).parent / "py.typed").exists()


@pytest.mark.slow
def test_importing_the_package_does_not_import_matplotlib():
    code = "import sys, hyperpinn_eqx; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
