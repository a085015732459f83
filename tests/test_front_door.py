"""What contributors are told is so: files, functions, targets and workflows exist."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

import hyperpinn_eqx as hpx

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "hyperpinn_eqx"
FORGE = ROOT / ".github"
PAGES = {
    name: (ROOT / name).read_text("utf-8")
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md")
}
WORKFLOWS = sorted((FORGE / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
SETTINGS = ROOT / "pyproject.toml"
SOURCE = "\n".join(p.read_text("utf-8") for p in [*PACKAGE.rglob("*.py"), SETTINGS])


def found(path):
    """Where a path is that a page names; NAME stands for a file of the reader's."""
    path = path.rstrip("/") if "NAME" not in path else str(pathlib.Path(path).parent)
    return [place for place in (ROOT / path, PACKAGE / path) if place.exists()]


def defined(path):
    """The names of a module's functions and classes, and of its classes' methods."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
            yield from (
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef)
            )


def wrong(text):
    """What a page names, in prose, code, a table or a link, but nobody finds."""
    for word in re.split(r"[\s`()=,;|]+", text):
        path, _, name = word.partition("::")
        if not re.search(r"/|\.(py|md|toml|lock|cff|yml|js)$", path):
            continue
        # What `make env` makes is there only afterwards.
        places = found(path) or path.startswith(".venv/")
        if not places or (name and name not in defined(places[0])):
            yield word
    for name in re.findall(r"\bhpx\.(\w+)", text):
        if not hasattr(hpx, name):
            yield f"hpx.{name}"
    for line in re.findall(r"(?<=[`\n]make )[a-z ]+\b(?!=)", text):
        yield from set(line.split()) - TARGETS
    for name in re.findall(r"`(\w+)`", text):
        if not re.search(rf"\b{name}\b", SOURCE):
            yield name


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page):
    assert [*wrong(PAGES[page])] == []


@pytest.mark.parametrize(
    "text",
    [
        "`networks/nothing.py`",
        "`networks/jets.py::nothing`",
        "`training/journal.py::Journal.nothing`",
        "[there](NOTHING.md)",
        "`hpx.nothing`",
        "`make nothing`",
        "`there_is_no_such_function`",
        "```sh\nmake unit TESTS=tests/nothing.py  # one file\n```",
    ],
)
def test_what_does_not_exist_is_found(text):
    assert len([*wrong(text)]) == 1


# --- What the forge reads -----------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", "workflows/*.yml"),
        ("github-issue-forms", "ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", "ISSUE_TEMPLATE/config.yml"),
    ],
)
@pytest.mark.slow
def test_files_of_the_forge_have_its_schema(schema, files):
    lint = pathlib.Path(sys.executable).with_name("check-jsonschema")
    paths = [str(path) for path in FORGE.glob(files)]
    assert paths
    command = [lint, "--builtin-schema", f"vendor.{schema}", *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_names_only_what_exists(path):
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    for job in jobs.values():
        assert job.get("needs", job["runs-on"]) in {*jobs, job["runs-on"]}
        known = set(job.get("strategy", {}).get("matrix", {}))
        assert set(re.findall(r"\bmatrix\.(\w+)", str(job))) == known
        ids = {step["id"] for step in job["steps"] if "id" in step}
        assert set(re.findall(r"\bsteps\.(\w+)", str(job))) == ids
        for step in job["steps"]:
            program, *arguments = step.get("run", "bash").split()
            if program == "make":
                assert set(arguments) <= TARGETS
            else:
                assert program == "bash" and all((ROOT / a).exists() for a in arguments)
            # Of an action the major version, as its authors ask for.
            assert re.fullmatch(
                r"actions/[a-z-]+@v\d+", step.get("uses", "actions/a@v1")
            )


def test_the_forge_gets_no_address():
    for path in FORGE.rglob("*.*"):
        assert "://" not in path.read_text("utf-8"), path


def test_hooks_have_the_versions_of_the_lock():
    text = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    repos = {r["repo"].split("/")[-1]: r for r in yaml.safe_load(text)["repos"]}
    assert {*repos} == {"ruff-pre-commit", "nbstripout", "local"}
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    (ruff,) = re.findall(r"^ruff==(\S+)", lock, re.M)
    assert repos["ruff-pre-commit"]["rev"] == f"v{ruff}"
    (mypy,) = repos["local"]["hooks"]
    assert mypy["entry"].removeprefix("make ") in TARGETS


# --- The version --------------------------------------------------------------------


def test_the_version_is_said_once():
    project = tomllib.loads(SETTINGS.read_text("utf-8"))["project"]
    assert hpx.__version__ == project["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == project["version"]
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## \[([^]]+)\]", changes, re.M)[0] == project["version"]
