"""How the package is built, in figures: rooms, imports between them, and ceremony.

    python tools/house.py [TREE ...]

Each TREE is a checkout of this repository, by default this one; two of them give the
figures before and after a change, side by side (`git worktree add` makes the second).
Only source is read: nothing is imported.

A *room* is a module or a folder at the top of the package; `__init__` and `__main__`
are rooms too, but are not counted as modules. An import between rooms counts once,
however many statements make it.

A *line of code* is neither blank, nor a comment, nor part of a docstring.

A line *only validates* if it is part of

- a simple statement that calls a function of `_arguments` (`checks` in older trees), or
  a decorator from there;
- a `raise` of a ValueError or a TypeError, or a statement that makes one;
- the head of an `if`, a loop, a `with`, a function or an `except` that does nothing
  else, or the `try` of such an `except`.

The module `_arguments` is judged like any other; its size is a row of its own. Lines of
tests are counted with everything in them, and once more like lines of code.
"""

import ast
import io
import pathlib
import sys
import tokenize
from collections.abc import Iterable, Iterator

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = "hyperpinn_eqx"
FRONT = ("__init__", "__main__")
CHECKS = ("_arguments", "checks")
ERRORS = ("ValueError", "TypeError")
LAYOUT = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT),
    *(tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER),
)
# What has blocks of statements below a head.
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class Source:
    """One file: its lines of code, and where it imports from.

    Args:
        path: of the file.
        package: the folder of the package, if the file is in it.
    """

    def __init__(self, path: pathlib.Path, package: pathlib.Path | None = None):
        self.text = path.read_text("utf-8")
        self.tree = ast.parse(self.text)
        self.docstrings = [*_docstrings(self.tree)]
        self.lines = _code(self.text) - {
            line for node in self.docstrings for line in _lines(node)
        }
        if package is not None:
            self.place = path.relative_to(package).with_suffix("").parts
            self.room = self.place[0]

    def imports(self) -> Iterator[tuple[str, list[str]]]:
        """Of every import from the package: the room, and the names that it binds."""
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.ImportFrom):
                continue
            module = (node.module or "").split(".")
            if node.level:
                # One dot is the folder of the file, and each further one that above it.
                folder = self.place[: len(self.place) - node.level]
                full = [*folder, *filter(None, module)]
            elif module[0] == PACKAGE:
                full = module[1:]
            else:
                continue
            called = [alias.asname or alias.name for alias in node.names]
            if full:
                yield full[0], called
            else:
                for alias in node.names:
                    yield alias.name, [alias.asname or alias.name]

    def validating(self) -> set[int]:
        """The lines of code that only validate."""
        known = {n for room, names in self.imports() if room in CHECKS for n in names}
        return self.lines & _Validating(known, self.tree).lines


class _Validating:
    """Finds the statements of a tree that only validate, and the lines they take."""

    def __init__(self, known: set[str], tree: ast.Module):
        self.known = known
        self.errors = {
            target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and _makes_error(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        self.lines: set[int] = set()
        self._block(tree.body)

    def _block(self, statements: list) -> bool:
        """Whether all statements validate; notes the lines of those that do."""
        found = [self._statement(node) for node in statements if not _is_text(node)]
        return bool(found) and all(found)

    def _statement(self, node: ast.AST) -> bool:
        if isinstance(node, ast.match_case):
            return self._block(node.body)
        blocks = {name: getattr(node, name, None) or [] for name in BLOCKS}
        if not any(blocks.values()):
            only = self._simple(node)
            if only:
                self.lines |= _lines(node)
            return only
        for decorator in getattr(node, "decorator_list", []):
            if self._calls(decorator):
                self.lines |= _lines(decorator)
        only = {name: self._block(block) for name, block in blocks.items() if block}
        # An `if` is a guard whatever its `else` does, and a `try` whatever it tries.
        if only.get("handlers", only.get("body")) and not isinstance(
            node, ast.ClassDef
        ):
            self.lines |= _head(node)
        return all(only.values())

    def _simple(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Import | ast.ImportFrom):
            return False
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name):
            return node.exc.id in self.errors
        return any(self._calls(n) or _makes_error(n) for n in ast.walk(node))

    def _calls(self, node: ast.AST) -> bool:
        """Whether a node calls, or is, something of the module of checks."""
        if isinstance(node, ast.Call):
            node = node.func
        elif not isinstance(node, ast.Name | ast.Attribute):
            return False
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self.known


def _makes_error(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ERRORS
    )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _lines(node: ast.AST) -> set[int]:
    return {*range(node.lineno, node.end_lineno + 1)}


def _head(node: ast.AST) -> set[int]:
    """The lines of a compound statement above its first block."""
    first = node.body[0].lineno
    return {*range(node.lineno, max(first, node.lineno + 1))}


def _docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    for node in ast.walk(tree):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            yield node.body[0]


def _code(text: str) -> set[int]:
    """The lines with anything but comments."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {
        line
        for token in tokens
        if token.type not in LAYOUT
        for line in range(token.start[0], token.end[0] + 1)
    }


def longest_chain(arrows: set[tuple[str, str]]) -> int:
    """How many rooms stand above each other: the longest chain of imports."""
    below: dict[str, set[str]] = {}
    for room, other in arrows:
        below.setdefault(room, set()).add(other)

    def height(room: str, path: tuple[str, ...] = ()) -> int:
        if room in path:
            raise ValueError(f"imports go in a circle: {' -> '.join([*path, room])}")
        if room not in heights:
            others = below.get(room, ())
            heights[room] = 1 + max(
                (height(o, (*path, room)) for o in others), default=0
            )
        return heights[room]

    heights: dict[str, int] = {}
    return max((height(room) for room in below), default=1)


def figures(root: pathlib.Path) -> dict[str, str]:
    """The figures of one tree, by name."""
    package = root / PACKAGE
    sources = [Source(path, package) for path in sorted(package.rglob("*.py"))]
    rooms = {source.room for source in sources}
    # What is no room of its own comes from `__init__`.
    imports = [
        (source.room, room if room in rooms else "__init__")
        for source in sources
        for room, _ in source.imports()
        if room != source.room
    ]
    code = sum(len(source.lines) for source in sources)
    only = sum(len(source.validating()) for source in sources)
    texts = (node.value.value for source in sources for node in source.docstrings)
    porter = sum(len(s.lines) for s in sources if s.room in CHECKS)
    tests = sorted((root / "tests").rglob("*.py"))
    test_lines = sum(len(path.read_text("utf-8").splitlines()) for path in tests)
    test_code = sum(len(Source(path).lines) for path in tests)
    modules = {path.stem for path in package.glob("*.py")} - {*FRONT}
    return {
        "modules at the top": str(len(modules)),
        "rooms": str(len(rooms)),
        "layers": str(longest_chain({*imports})),
        "imports between rooms": str(len({*imports})),
        "  as statements": str(len(imports)),
        "lines of code": str(code),
        "  of _arguments": str(porter),
        "  that only validate": str(only),
        "  share": f"{only / code:.1%}",
        "Raises: sections": str(sum(_raises(text) for text in texts)),
        "lines of tests": str(test_lines),
        "  for a line of code": f"{test_lines / code:.2f}",
        "  of code, for a line of code": f"{test_code / code:.2f}",
    }


def _raises(docstring: str) -> int:
    return sum(line.strip() == "Raises:" for line in docstring.splitlines())


def table(columns: Iterable[tuple[str, dict[str, str]]]) -> str:
    """One column of figures for each tree, under its name."""
    heads, found = zip(*columns, strict=True)
    rows = [["", *heads], *([name, *(f[name] for f in found)] for name in found[0])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    )


if __name__ == "__main__":
    trees = [pathlib.Path(name).resolve() for name in sys.argv[1:]] or [ROOT]
    print(table((tree.name, figures(tree)) for tree in trees))
