"""The API pages: every public name once, and signatures as the code has them."""

import importlib.util
import inspect
import operator
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
    module = ""
    for directive, name in DIRECTIVE.findall(page):
        if directive == "currentmodule":
            module = name
        else:
            yield name if name.startswith("hyperpinn_eqx.") else f"{module}.{name}"


NAMES = [name for page in PAGES.values() for name in documented(page)]


@pytest.fixture(scope="module")
def extension():
    """The Sphinx extension of the book."""
    path = ROOT / "book" / "_ext" / "api_reference.py"
    spec = importlib.util.spec_from_file_location("api_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_there_once():
    assert PUBLIC and PUBLIC - set(NAMES) == set()
    assert [name for name in NAMES if NAMES.count(name) > 1] == []


# Top-level modules have the pages of the rooms that they belong to.
PAGE_OF = {"box": "networks", "plotting": "figures", "live": "figures"}
PAGE_OF |= {"pretrained": "figures", "loss": "training", "_blocks": "training"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_a_folder(page):
    for name in documented(PAGES[page]):
        module, _, attribute = name.rpartition(".")
        source = getattr(importlib.import_module(module), attribute).__module__
        folder = source.split(".")[1]
        wanted = PAGE_OF.get(folder, folder)
        # The stages of a training are a part of the experiments.
        wanted = module.split(".")[1] if "." in module else wanted
        assert f"api/{wanted}" == page, name


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


SIGNATURES = {
    "uniform": (
        "(domain: Box | Mapped, shape: Shape, "
        "lam: Float[Array, '*p'] | None=None, *, key: PRNGKeyArray)",
        "Float[Array, '*shape d']",
    ),
    "MainNetSpec.unflatten": ("(theta: Float[ArrayLike, 'P'])", "MainNet"),
    "MultistepLoss": (
        "(data: Trajectories, scheme: Multistep, scale: Float[ArrayLike, 'd'], *, "
        "n_windows: Count=400)",
        None,
    ),
    "MainNetSpec": (
        "(sizes: tuple[Count, ...], inputs: Box, outputs: Box | None = None, "
        "bounded: bool = True, odd: str | None = None, hard: Hard | None = None)",
        None,
    ),
    "SingleNet": ("(net: MainNet, parameters: Box)", None),
    "AbstractPDE": (None, None),  # abstract
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_as_written(extension, name):
    value = operator.attrgetter(name)(hpx)
    what = "class" if inspect.isclass(value) else "function"
    found = extension.signature(None, what, name, value, None, "", "")
    assert found == SIGNATURES[name]
