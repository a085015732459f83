"""No result is typed into a sentence: its page computes it, or reads it from a record.

A typed number is right on the day on which it is typed. So results go into sentences
by MyST-NB's `glue`, and what a machine can recognise as a result must not be typed: a
number with a unit of time or memory, per cent, a factor, a power of ten, and any
decimal that the page also prints. Data of problems, conventions and the paper's own
figures are listed in `typed_numbers.toml`, each with its reason.
"""

import ast
import functools
import io
import json
import math
import pathlib
import re
import runpy
import tokenize
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BOOK = ROOT / "book"
EXECUTED = ROOT / "_executed"
PATHS = (*BOOK.rglob("*.ipynb"), *BOOK.rglob("*.md"), ROOT / "README.md")
PAGES = {
    str(path.relative_to(BOOK if BOOK in path.parents else ROOT).with_suffix("")): path
    for path in sorted(PATHS)
    if ".ipynb_checkpoints" not in path.parts
}
NOTEBOOKS = [name for name, path in PAGES.items() if path.suffix == ".ipynb"]
TYPED = tomllib.loads((ROOT / "tests/book/typed_numbers.toml").read_text("utf-8"))


# --- What a reader reads --------------------------------------------------------------


def cells(path):
    """The cells of a notebook; a Markdown file is one cell of text."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        return json.loads(text)["cells"]
    return [{"cell_type": "markdown", "source": text, "metadata": {}}]


def prose(cells):
    """Text, captions and alternative texts, as they stand in the source."""
    texts = []
    for cell in cells:
        if cell["cell_type"] == "markdown":
            texts.append("".join(cell["source"]))
        else:
            about = cell["metadata"].get("mystnb", {})
            texts.append(about.get("figure", {}).get("caption", ""))
            texts.append(about.get("image", {}).get("alt", ""))
    return "\n\n".join(filter(None, texts))


NUMBER = r"\d+(?:[ ,\u202f]\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?"
POWER = rf"-?(?:{NUMBER}\s*(?:\\cdot|\\times)\s*)?10\^(?:\{{-?\d+\}}|\d)"


def plain(match):
    """A formula that is nothing but a number is one; others say nothing here."""
    formula = match[1].strip()
    if re.fullmatch(POWER, formula):
        return re.sub(r"\s*\\(?:cdot|times)\s*", "·", formula)
    number = re.fullmatch(rf"-?(?:{NUMBER})(?:\\,\s*|\s*)(\\%)?", formula)
    return formula.replace("\\", "") if number else "…"


def unfenced(text):
    """Without code blocks; what directives hold stays."""
    fences = []
    for line in text.splitlines():
        fence = re.match(r"(```+|:::+)(.*)", line)
        if fence and fence[2].strip():
            fences.append("{" in fence[2])
        elif fence and fences:
            fences.pop()
        elif fence:
            fences.append(False)
        elif all(fences):
            yield line


def read_aloud(text):
    """Without code, formulas, roles, targets of links and options of directives."""
    text = re.sub(r"^---\n.*?\n---\n", "", text, flags=re.S)
    text = "\n".join(unfenced(text))
    text = re.sub(r"^:[\w-]+:.*$", "", text, flags=re.M)
    text = re.sub(r"\$\$.*?\$\$(?: \(eq-.*?\))?", "…", text, flags=re.S)
    text = re.sub(r"\$([^$\n]+)\$", plain, text)
    text = re.sub(r"\{[\w:]+\}`[^`]*`", "…", text)
    text = re.sub(r"`[^`\n]*`", "…", text)
    text = re.sub(r"\]\([^)\s]*\)|<[^>\n]*>|^\([\w-]+\)=$", "]", text, flags=re.M)
    # How long a page takes to read is an estimate, and so is how long it runs.
    return re.sub(r"^\*\*Time\.\*\* .*$", "", text, flags=re.M)


# --- What looks like a result ---------------------------------------------------------

WORDS = (
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozens?|"
    r"thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|"
    r"twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|(?:ten|hundred|thousand|"
    r"million)s?(?: of)?)\b"
)
COUNT = f"(?:{NUMBER}|{WORDS})"
UNITS = (
    r"(?:%|per ?cent\b|(?:m|µ|n)?s\b|(?:milli|micro|nano)?seconds?\b|minutes?\b|"
    r"hours?\b|[kMG]i?B\b)"
)
PARTS = "(?:hal(?:f|ves)|thirds?|quarters?|fifths?|sixths?|eighths?|tenths?)"
RESULTS = (
    rf"{COUNT}[ -]?{UNITS}",
    r"\ban? (?:millisecond|minute|hour)s?\b",
    rf"(?<!\bat )(?<!\w){COUNT}[ -](?:or {COUNT} )?(?:times|fold)\b",
    rf"\bfactors? (?:of|between)(?: \w+)? {COUNT}",
    rf"{COUNT} (?:more )?(?:orders? of magnitude|decades?|digits)\b",
    rf"\b(?:one|two|three|four|an?) {PARTS} (?:of|as|more|less)\b|\bhalf (?:of|as)\b",
    r"\b(?:twice|thrice) as\b",
    rf"\bone (?:\w+ )?in (?!one\b){COUNT}",
    r"\b\d+(?:\.\d+)?e[+-]?\d+|(?:[\d.]+·)?10\^(?:\{-?\d+\}|\d)|10[⁻⁰-⁹¹²³]+",
)
RESULT = re.compile("|".join(f"(?:{r})" for r in RESULTS), re.I)


@functools.cache
def allowed(page):
    """What may stand on a page as it is; the README's results have a test."""
    computed = []
    if page == "README":
        computed = runpy.run_path(str(ROOT / "tests/test_readme.py"))["results"]()
    return [*TYPED.get("everywhere", {}), *TYPED.get(page, {}), *computed]


def without_exceptions(text, page):
    # The longest first, since one phrase may be a part of another.
    for phrase in sorted(allowed(page), key=len, reverse=True):
        text = text.replace(phrase, "…")
    return text


def around(text, match):
    start, end = max(match.start() - 40, 0), match.end() + 30
    return " ".join(text[start:end].split())


def typed_results(text):
    """What looks like a result, with a few words around it."""
    text = read_aloud(text)
    return [f"{m[0]!r} in '{around(text, m)}'" for m in RESULT.finditer(text)]


@pytest.mark.parametrize("page", PAGES)
def test_no_result_is_typed(page):
    text = without_exceptions(prose(cells(PAGES[page])), page)
    found = typed_results(text)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", TYPED)
def test_exceptions_are_in_use_and_have_a_reason(page):
    texts = [
        prose(cells(path))
        for name, path in PAGES.items()
        if page in (name, "everywhere")
    ]
    assert texts, f"{page} is not a page"
    for phrase, reason in TYPED[page].items():
        assert reason and any(phrase in text for text in texts), phrase


# --- What the page itself prints ------------------------------------------------------


def digits(text):
    """How many significant digits a number is typed with."""
    return len(re.sub(r"e.*|\D", "", text).lstrip("0"))


def value(text):
    return float(re.sub(r"[ ,\u202f]", "", text))


def literals(cells):
    """The numbers in the code of a page: settings, not results."""
    numbers = set()
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            lines = io.StringIO(re.sub(r"^[%!].*$", "", source, flags=re.M))
            for token in tokenize.generate_tokens(lines.readline):
                if token.type == tokenize.NUMBER:
                    number = ast.literal_eval(token.string)
                    if not isinstance(number, complex):
                        numbers.add(float(number))
    return numbers


def printed(cells):
    """The numbers that the cells of an executed page show as text."""
    numbers = set()
    for cell in cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            for text in (
                output.get("text", "") if output.get("name") == "stdout" else "",
                data.get("text/markdown", "") or data.get("text/plain", ""),
            ):
                found = re.findall(rf"(?<![\w.]){NUMBER}", "".join(text))
                numbers.update(map(value, found))
    return numbers


def typed_outputs(text, cells):
    """Decimals in sentences that equal, to their own precision, one that is printed.

    Whole numbers are nearly always counts and settings.
    """
    text = read_aloud(text)
    settings, shown = literals(cells), printed(cells)
    for match in re.finditer(rf"(?<![\w.^]){NUMBER}(?![\w^])", text):
        typed = value(match[0])
        n = digits(match[0])
        if n < 2 or re.fullmatch(r"[\d ,\u202f]+", match[0]) or typed in settings:
            continue
        if any(float(f"{number:.{n - 1}e}") == typed for number in shown):
            yield f"{match[0]!r} in '{around(text, match)}'"


@pytest.mark.pages
@pytest.mark.parametrize("page", NOTEBOOKS)
def test_no_printed_number_is_typed(page):
    executed = cells(EXECUTED / f"{page}.ipynb")
    text = without_exceptions(prose(executed), page)
    found = list(typed_outputs(text, executed))
    assert not found, "\n".join(found)


# --- Numbers that are computed --------------------------------------------------------


@functools.cache
def glued(page):
    """The names that a page computes, and those that its sentences use."""
    book = cells(PAGES[page])
    code = "\n".join(
        re.sub(r"^[%!].*$", "", "".join(cell["source"]), flags=re.M)
        for cell in book
        if cell["cell_type"] == "code"
    )
    names = [
        ast.unparse(node.args[0])
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "glue"
    ]
    used = re.findall(r"\{glue:\w+\}`([\w-]+)[^`]*`", prose(book))
    return [name.strip("'") for name in names], used


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_what_is_computed_for_a_sentence_is_in_one(page):
    names, used = glued(page)
    assert sorted(set(names)) == sorted(names)
    assert set(names) == set(used)
    assert all(name.startswith(f"{page}-") for name in names)


# --- The test notices -----------------------------------------------------------------

PLANTED = (
    "A training takes 304 s.",
    "It answers in half a minute, or 0.2 ms for a point.",
    "The share falls to 96 % here.",
    "The error is some thirty times smaller.",
    "That is a factor of 82.",
    "It ends four orders of magnitude below.",
    "One viscosity in ten is missed: one in ten.",
    "After the same steps the error is a quarter of that.",
    "It is twice as fast.",
    "The error is 1.3e-4.",
    "The error, $10^{-4}$ or less, plays no part.",
    r"The error is $1.9 \cdot 10^{-5}$.",
    "The error is 1.3·10⁻⁴.",
    "```{exercise-start} How long?\n:label: ex\n```\nIn 3 s?\n```{exercise-end}\n```",
    "```\ncode\n```\n\nIt takes 3 s.\n\n```\ncode\n```",
    ":::{admonition} Pro and con\n:class: note\n\n**Pro.** It takes 12 minutes.\n:::",
)
HARMLESS = (
    "The range is [0.001, 0.1], and `12 s` is code.",
    "The loss is {glue:text}`page-loss:.1e` after {glue:text}`page-time:.0f` s.",
    r"It holds for $\mu = 10^{-6}$ and $\|r\|^2 / 10^{-3}$.",
    "See [the page](https://example.org/10-minutes) of a second opinion, many times.",
    "```sh\nmake book  # 20 minutes\n```",
    "**Time.** 10 minutes to read, one to two minutes to run.",
    "What a step does at 100 points and 64 viscosities, drawn at four times.",
)


@pytest.mark.parametrize("text", PLANTED)
def test_a_planted_result_is_found(text):
    assert typed_results(f"Some text.\n\n{text}")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_result_is_not_found(text):
    assert typed_results(text) == []


def page_that_prints(text):
    return [
        {
            "cell_type": "code",
            "source": "steps = 6000\nprint(result)",
            "outputs": [{"name": "stdout", "text": text}],
        }
    ]


@pytest.mark.parametrize("typed", ("0.0361", "0.036", "3.61e-2"))
def test_a_planted_output_is_found(typed):
    book = page_that_prints("error 3.6137e-02")
    assert list(typed_outputs(f"It ends at {typed}.", book))


@pytest.mark.parametrize("typed", ("0.037", "0.0361x", "6000", "4", "1235", "`0.036`"))
def test_other_numbers_are_not_found(typed):
    book = page_that_prints("error 3.6137e-02, steps 6000, count 1235, seed 4")
    assert not list(typed_outputs(f"It ends at {typed}.", book))


def test_rounding_is_to_the_typed_precision():
    assert digits("0.0361") == 3 and digits("1.9e-5") == 2 and digits("100") == 3
    assert math.isclose(value("1 235.5"), 1235.5)
