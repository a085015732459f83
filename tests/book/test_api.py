"""The API pages: every public name once, and signatures as the code has them."""

import importlib.util
import inspect
import pathlib
import re

import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.__main__ import main

ROOT = pathlib.Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT / "book").with_suffix("").as_posix(): path.read_text("utf-8")
    for path in sorted((ROOT / "book" / "api").glob("*.md"))
}
PUBLIC = {
    f"hyperpinn_eqx.{name}"
    for name, value in vars(hpx).items()
    if not name.startswith("_") and not inspect.ismodule(value)
}
DIRECTIVE = re.compile(
    r"\.\. (currentmodule|autofunction|autoclass|autoexception):: ([\w.]+)"
)


def documented(page):
    """The full names that a page documents."""
    names, module = [], ""
    for directive, name in DIRECTIVE.findall(page):
        if directive == "currentmodule":
            module = name
        else:
            whole = name.startswith("hyperpinn_eqx.")
            names.append(name if whole else f"{module}.{name}")
    return names


NAMES = [name for page in PAGES.values() for name in documented(page)]


@pytest.fixture(scope="module")
def extension():
    """The Sphinx extension of the book."""
    path = ROOT / "book" / "_ext" / "api_reference.py"
    spec = importlib.util.spec_from_file_location("api_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_on_a_page():
    assert PUBLIC and PUBLIC - set(NAMES) == set()


def test_no_name_is_there_twice():
    assert [name for name in NAMES if NAMES.count(name) > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_name_on_a_page_has_a_docstring(name):
    module, _, attribute = name.rpartition(".")
    assert inspect.getdoc(getattr(importlib.import_module(module), attribute))


def test_every_page_is_in_the_table_of_contents():
    toc = (ROOT / "_toc.yml").read_text("utf-8")
    assert set(re.findall(r"file: (api/\S+)", toc)) == set(PAGES)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_every_option_of_a_command_is_on_its_page(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    options = set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help"}
    page = PAGES["api/paper"]
    assert f"python -m hyperpinn_eqx {command}" in page
    assert options <= set(re.findall(r"--[a-z]+", page))


@pytest.mark.parametrize(
    ("what", "name", "arguments", "returns"),
    [
        (
            "function",
            "uniform",
            "(box: Box, shape: Shape, *, key: PRNGKeyArray)",
            "Float[Array, '*shape d']",
        ),
        (
            "method",
            "MainNetSpec.unflatten",
            "(theta: Float[ArrayLike, 'P'])",
            "MainNet",
        ),
        (
            "class",
            "MultistepLoss",
            "(data: Trajectories, scheme: Multistep, "
            "scale: Float[ArrayLike, 'd'], *, n_windows: Count=400)",
            None,
        ),
        (
            "class",
            "MainNetSpec",
            "(sizes: tuple[Count, ...], inputs: Box, outputs: Box | None = None, "
            "bounded: bool = True, odd: str | None = None)",
            None,
        ),
        ("class", "SingleNet", "(net: MainNet, parameters: Box)", None),
    ],
)
def test_signatures_are_as_written(extension, what, name, arguments, returns):
    value = hpx
    for part in name.split("."):
        value = getattr(value, part)
    found = extension.signature(None, what, name, value, None, "", "")
    assert found == (arguments, returns)


def test_an_abstract_class_shows_no_arguments(extension):
    found = extension.signature(None, "class", "", hpx.AbstractPDE, None, "", "")
    assert found == (None, None)
