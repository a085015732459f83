"""Every folder of the package imports only from what stands above it."""

import ast
import pathlib
import re

import pytest

import hyperpinn_eqx as hpx

PACKAGE = pathlib.Path(hpx.__file__).parent
# From the foundations to the front: a room may import from those before it.
ORDER = [
    *("_arguments", "_files", "_blocks", "_programs", "box", "loss"),
    *("networks", "problems", "physics", "dynamics", "training", "recipes"),
    *("uncertainty", "plotting", "live", "pretrained", "paper"),
]
MODULES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.parent != PACKAGE or path.stem in ORDER
)


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """The rooms from which a module imports."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [alias.name for alias in node.names]
            yield from [node.module.split(".")[0]] if node.module else names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rooms_above_its_own(path):
    above = ORDER[: ORDER.index(room(path))]
    assert {*imports(path)} <= {*above}


def test_a_training_knows_no_equation():
    known = {r for p in MODULES if room(p) == "training" for r in imports(p)}
    assert not known & {"problems", "physics", "dynamics"}


def test_every_room_has_its_place():
    there = {room(p) for p in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert there == {*ORDER}


def test_the_map_has_the_rooms_in_this_order():
    page = (PACKAGE.parent / "ARCHITECTURE.md").read_text("utf-8")
    table = page.partition("| room |")[2].partition("\n\n")[0]
    heads = re.findall(r"^\| (`.*?) \|", table, re.M)
    rooms = [room for head in heads for room in re.findall(r"`([\w]+)", head)]
    assert rooms == ORDER
