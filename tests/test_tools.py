"""The scripts of tools/: what they count, and that what they name exists."""

import importlib.util
import pathlib
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


house, mutate = tool("house"), tool("mutate")
# Each line says whether it is code, and whether it only validates.
JUDGED = '''
    """A docstring."""
    from . import _arguments as checks  # code
    from ._arguments import count, checked  # code

    @checked  # code, validates
    def f(a, b):  # code
        """Another,
        of two lines.

        Raises:
            ValueError: often.
        """
        # A comment.
        a = checks.positive("a", a)  # code, validates
        if a > b:  # code, validates
            raise ValueError(  # code, validates
                "a"  # code, validates
            )  # code, validates
        else:  # code
            b = a  # code
        for x in b:  # code, validates
            count("x", x)  # code, validates
        try:  # code, validates
            c = g(a)  # code
        except KeyError as error:  # code, validates
            raise TypeError("b") from error  # code, validates
        if c:  # code
            raise RuntimeError("no check")  # code
        return [  # code
            c  # code
        ]  # code

    def check(a):  # code, validates
        """Only validates."""
        error = ValueError("a")  # code, validates
        if a:  # code, validates
            raise error  # code, validates
'''


def tree(folder, **files):
    """A package of the given modules, and one test of three lines."""
    (folder / "tests").mkdir()
    (folder / "tests" / "test_a.py").write_text("# One.\n\nx = 1\n")
    for name, text in files.items():
        path = folder / house.PACKAGE / f"{name.replace('__', '/', 1)}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def test_each_line_is_judged_as_documented(tmp_path):
    root = tree(tmp_path, a=JUDGED)
    source = house.Source(root / house.PACKAGE / "a.py", root / house.PACKAGE)
    lines = list(enumerate(source.text.splitlines(), start=1))
    assert source.lines == {n for n, line in lines if "# code" in line}
    assert source.validating() == {n for n, line in lines if ", validates" in line}


def test_rooms_layers_and_imports(tmp_path):
    root = tree(
        tmp_path,
        a="",
        b="from . import a\nfrom .a import f\n",
        c__d="from ..b import g\nfrom .. import a\nfrom .e import h\n",
        c__e="def h():\n    from hyperpinn_eqx.b import g\n",
    )
    found = house.figures(root)
    names = ("modules at the top", "rooms", "layers", "imports between rooms")
    # b -> a, c -> b, c -> a, in five statements.
    assert [found[name] for name in names] == ["2", "3", "3", "3"]
    assert found["  as statements"] == "5" and found["lines of tests"] == "3"
    table = house.table([("old", {"rooms": "42"}), ("new", found)])
    assert table.split() == ["old", "new", "rooms", "42", "3"]


def test_a_circle_is_an_error(tmp_path):
    root = tree(tmp_path, a="from .b import f\n", b="from .a import g\n")
    with pytest.raises(ValueError, match=r"a -> b -> a|b -> a -> b"):
        house.figures(root)


def test_what_is_mutated_and_its_tests_exist():
    for module, tests in mutate.MODULES.items():
        path = f"hyperpinn_eqx/{module.replace('.', '/')}.py"
        assert all((ROOT / file).exists() for file in [path, *tests]), module
