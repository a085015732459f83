"""The conventions of the chapters, and that each check notices when one is broken."""

import ast
import json
import pathlib
import re
import statistics

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
BOOK = ROOT / "book"


def _chapters():
    (part,) = (
        part
        for part in yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))["parts"]
        if part["caption"] == "Chapters"
    )
    return [entry["file"] for entry in part["chapters"]]


CHAPTERS = _chapters()


def read(name):
    return json.loads((BOOK / f"{name}.ipynb").read_text("utf-8"))


def source(cell):
    return "".join(cell["source"])


def code(book):
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def about(cell):
    """What MyST-NB is told about a cell: its figure, and its alternative text."""
    return cell["metadata"].get("mystnb", {})


def prose(book):
    """All text, with one line in the place of each code cell."""
    return "\n\n".join(
        source(cell) if cell["cell_type"] == "markdown" else "<code>"
        for cell in book["cells"]
    )


# --- What a chapter has to have: each function yields what is wrong -------------------


def opening(name, book):
    first = source(book["cells"][0])
    if not re.match(rf"\(ch-{name}\)=\n# \S", first):
        yield f"does not begin with (ch-{name})= and a title"
    parts = ("What you'll do.", "What you'll learn.", "What you'll need.", "Time.")
    box = r":::\{admonition\} Before you start\n:class: tip\n"
    box += "".join(rf"\n\*\*{part}\*\* \S.*\n" for part in parts) + ":::"
    if not re.search(box, first):
        yield "has no opening box with " + ", ".join(parts)


def pro_and_con(name, book):
    box = r":::\{admonition\} Pro and con of .+\n:class: note\n\n"
    box += r"\*\*Pro\.\*\* \S.*\n\n\*\*Con\.\*\* \S.*\n:::"
    if not re.search(box, prose(book)):
        yield "has no box Pro and con"


def exercises(name, book):
    text = prose(book)
    own = text.partition("\n## On your own\n")[2].partition("\n## ")[0]
    fence = r"```\n(.+?)\n?```"
    asked = re.findall(
        r"```\{exercise-start\} \S[^\n]*\n:label: (\S+)\n"
        + fence
        + r"\{exercise-end\}\n```",
        own,
        re.S,
    )
    solved = re.findall(
        r"```\{solution-start\} (\S+)\n:label: (\S+)\n:class: dropdown\n"
        + fence
        + r"\{solution-end\}\n```",
        own,
        re.S,
    )
    labels = [label for label, _ in asked]
    if len(labels) < 3:
        yield f"has {len(labels)} exercises under 'On your own', expected three"
    if [label for label, _, _ in solved] != labels:
        yield "has exercises without a solution, or in another order"
    for label, own_label, answer in solved:
        if own_label != label.replace("ex-", "so-", 1):
            yield f"calls the solution of {label} {own_label}"
        if "<code>" not in answer:
            yield f"computes nothing in the solution of {label}"
    if text.count("{exercise-start}") + text.count("{exercise-end}") != 2 * len(labels):
        yield "has an exercise that is not closed, or outside 'On your own'"


def closing(name, book):
    last = source(book["cells"][-1])
    reading = last.partition("## Further reading\n")[2]
    if "{cite" not in reading:
        yield "does not end with 'Further reading' and a citation"
    following = CHAPTERS[CHAPTERS.index(name) + 1 :]
    if following and not re.search(
        rf"\n\nNext: \[.+\]\({following[0]}\.ipynb\)\.$", last
    ):
        yield f"does not end with 'Next: [...]({following[0]}.ipynb).'"


def drawn(cell):
    """The names of what a cell calls in the plotting libraries, outside functions."""
    tree = ast.parse(re.sub(r"^%.*$", "", source(cell), flags=re.M))
    todo, calls = [tree], set()
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            calls.add(ast.unparse(node.func))
        todo += ast.iter_child_nodes(node)
    setup = {"plt.style.use", "plt.get_cmap"}
    return {call for call in calls if call.startswith("plt.")} - setup


def figures(name, book):
    for cell in code(book):
        head = source(cell).partition("\n")[0]
        calls = drawn(cell)
        if calls and "plt.show" not in calls:
            yield f"draws without plt.show(): {head}"
        live = "hpx.live_figure(" in source(cell)
        if calls or live:
            for key in ("caption", "name"):
                if not about(cell).get("figure", {}).get(key):
                    yield f"shows a figure without a {key}: {head}"
        # A live figure describes itself to a screen reader.
        if calls and not about(cell).get("image", {}).get("alt"):
            yield f"shows a figure without alternative text: {head}"


def clean(name, book):
    for cell in code(book):
        head = source(cell).partition("\n")[0]
        if cell["outputs"] or cell["execution_count"] is not None:
            yield f"is committed with outputs: {head}"
        if set(cell["metadata"]) - {"mystnb", "tags"}:
            yield f"is committed with metadata of a run: {head}"


def short(name, book):
    for cell in code(book):
        lines = source(cell).splitlines()
        if len(lines) > 30:
            yield f"has a cell of {len(lines)} lines: {lines[0]}"
        for line in lines:
            if len(line) > 74:
                yield f"has a line of {len(line)} characters: {line}"


CHECKS = (opening, pro_and_con, exercises, closing, figures, clean, short)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter(name, check):
    assert list(check(name, read(name))) == []


# --- What holds for the book as a whole -----------------------------------------------


def notebooks():
    return {path.stem: read(path.stem) for path in sorted(BOOK.glob("*.ipynb"))}


def test_names_of_figures_and_labels_are_unique():
    names = []
    for book in notebooks().values():
        figures = [about(cell)["figure"] for cell in code(book) if about(cell)]
        names += [figure["name"] for figure in figures if "name" in figure]
        names += re.findall(r"^:label: (\S+)$", prose(book), re.M)
    assert len(names) > 50
    assert sorted(names) == sorted(set(names))


def test_code_cells_are_short():
    cells = [cell for book in notebooks().values() for cell in code(book)]
    lines = [len(source(cell).splitlines()) for cell in cells]
    assert statistics.median(lines) <= 8
    assert statistics.quantiles(lines, n=10)[-1] <= 25


# --- Each check on a chapter that was good until one thing was broken -----------------

GOOD = "families"


def replaced(old, new):
    """Breaks a chapter by putting `new` for every `old` in its cells."""

    def change(book):
        assert any(old in source(cell) for cell in book["cells"])
        for cell in book["cells"]:
            cell["source"] = source(cell).replace(old, new).splitlines(keepends=True)

    return change


def first_figure(change):
    """Breaks a chapter by a change of the cell of its first figure."""
    return lambda book: change(
        next(cell for cell in code(book) if "mystnb" in cell["metadata"])
    )


def without_code_from_the_exercises_on(book):
    at = next(i for i, c in enumerate(book["cells"]) if "{exercise-s" in source(c))
    rest = [cell for cell in book["cells"][at:] if cell["cell_type"] != "code"]
    book["cells"] = book["cells"][:at] + rest


# By check: a piece of what it says, what stands in the good chapter, and what then.
REPLACED = {
    opening: [
        ("and a title", "\n# ", "\n"),
        ("does not begin with", "(ch-families)=", "(families)="),
        ("no opening box", "**Time.**", "Time:"),
        ("no opening box", "**What you'll do.**", ""),
    ],
    pro_and_con: [
        ("no box", "**Con.**", ""),
        ("no box", "} Pro and con of", "} About"),
    ],
    exercises: [
        ("has 2 exercises", "t} The breaking time", "t}"),
        ("has 0 exercises", "## On your own", "## Exercises"),
        ("not closed", "{exercise-end}", ""),
        ("without a solution", "{solution-start}", "{note}"),
        ("without a solution", "{solution-end}", ""),
        ("without a solution", ":class: dropdown\n", ""),
        ("without a solution", "start} ex-breaking", "start} ex-b"),
        ("the solution of ex-breaking so-b", "so-breaking", "so-b"),
    ],
    closing: [
        ("a citation", "{cite", "{"),
        ("'Further reading'", "## Further reading", "## More"),
        ("'Next:", "\n\nNext: ", "\n\n"),
        ("'Next:", "](pinn.ipynb)", "](lorenz.ipynb)"),
    ],
    figures: [("plt.show()", "plt.show()", "")],
}
BROKEN = [
    (check, complaint, replaced(old, new))
    for check, cases in REPLACED.items()
    for complaint, old, new in cases
]
BROKEN += [(exercises, "computes nothing", without_code_from_the_exercises_on)]
BROKEN += [
    (check, complaint, first_figure(change))
    for check, complaint, change in (
        (figures, "without a caption", lambda c: about(c)["figure"].pop("caption")),
        (figures, "without a name", lambda c: about(c)["figure"].pop("name")),
        (figures, "without alternative text", lambda c: about(c).pop("image")),
        (figures, "without a name", lambda c: c.update(metadata={})),
        (clean, "with outputs", lambda c: c["outputs"].append({})),
        (clean, "with outputs", lambda c: c.update(execution_count=1)),
        (clean, "of a run", lambda c: c["metadata"].update(execution={})),
        (short, "a cell of", lambda c: c["source"].extend(["\n1"] * 30)),
        (short, "a line of", lambda c: c["source"].append("1" * 75)),
    )
]


@pytest.mark.parametrize("check, complaint, breaks", BROKEN)
def test_each_check_notices_what_is_broken(check, complaint, breaks):
    book = read(GOOD)
    breaks(book)
    assert any(complaint in found for found in check(GOOD, book))
