"""The chapters on the reader's own equation: class, recipe, and what they use."""

import ast
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.physics.pinn import condition_residuals
from hyperpinn_eqx.physics.sampling import condition_points

ROOT = pathlib.Path(__file__).parents[2]


def code(chapter):
    """The code cells of a chapter, as pairs of source and tags."""
    book = json.loads((ROOT / f"book/{chapter}.ipynb").read_text("utf-8"))
    return [
        ("".join(cell["source"]), cell["metadata"].get("tags", []))
        for cell in book["cells"]
        if cell["cell_type"] == "code"
    ]


CELLS = [source for source, _ in code("own-equation")]
(FISHER,) = (cell for cell in CELLS if cell.startswith("class Fisher("))
MORE = code("more-families")
RECIPES = {
    tag: "\n".join(source for source, tags in MORE if tag in tags)
    for tag in ("recipe", "system-recipe")
}
README = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S
)
POINTS = np.random.default_rng(0).uniform((0, 0), (4, 10), (200, 2))


def run(source):
    """The problem that a cell defines, as a reader's notebook runs it."""
    namespace = {"hpx": hpx, "jnp": jnp}
    exec(compile(source, "own-equation.ipynb", "exec"), namespace)
    return namespace["Fisher"]()


def largest_residual(source, D):
    """Of the exact solution, in the equation as `source` has it."""
    problem, exact = run(source), run(FISHER).exact

    @eqx.filter_jit
    def residuals(points):
        lam = jnp.array([D])
        return hpx.residuals(lambda p: exact(p[0], p[1], lam[0]), problem, lam, points)

    return float(jnp.max(jnp.abs(residuals(jnp.asarray(POINTS)))))


def test_the_class_is_short_and_its_exact_solution_solves_the_equation(x64):
    assert len([line for line in FISHER.splitlines() if line.strip()]) <= 20
    for D in (0.01, 0.1, 1.0):
        assert largest_residual(FISHER, D) < 1e-14


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("u.t - lam * u.xx", "u.t + lam * u.xx"),
        ("u.xx - u.value", "u.xx + u.value"),
        ("(1 - u.value)", "(1 + u.value)"),
    ],
)
def test_any_wrong_sign_is_caught(right, wrong, x64):
    assert FISHER.count(right) == 1
    for D in (0.01, 0.1, 1.0):
        assert largest_residual(FISHER.replace(right, wrong), D) > 1e-2


def test_the_first_class_has_a_start_and_walls_that_the_formula_meets(x64, getkey):
    problem = run(FISHER)
    assert [*problem.conditions] == ["start", "walls"]
    for name, where in problem.conditions.items():
        places = condition_points(problem.domain, where, 50, key=getkey())
        for D in (0.01, 0.1, 1.0):

            def wave(p, D=D):
                z = (p[1] - 1 - 5 * np.sqrt(D / 6) * p[0]) / np.sqrt(6 * D)
                return (1 + jnp.exp(z)) ** -2

            lam = jnp.array([D])
            off = condition_residuals(lambda p: wave(p) + 1, problem, name, lam, places)
            np.testing.assert_allclose(off, 1, rtol=1e-12)


# In a process of its own: a reader has neither our strict modes nor slow kernels.
TESTS = {
    "recipe": """
(curve,) = plt.gca().get_lines()
assert np.array_equal(curve.get_xydata()[:, 1], error.relative_l2)
assert np.median(error.relative_l2) < 1e-3 and len(error.lam) >= 20
""",
    "system-recipe": """
assert [*error.fields] == ["u", "v", "p"] and len(error.lam) >= 20
for curve, one in zip(plt.gca().get_lines(), error.fields.values(), strict=True):
    assert np.array_equal(curve.get_xydata()[:, 1], one.relative_l2)
assert np.median(error.relative_l2) < 0.05
""",
}


@pytest.mark.parametrize(("tag", "most"), [("recipe", 20), ("system-recipe", 30)])
def test_a_recipe_is_short(tag, most):
    lines = [line for line in RECIPES[tag].splitlines() if line.strip()]
    own = [line for line in lines if not re.match("import |from .* import", line)]
    assert 10 < len(own) <= most


@pytest.mark.slow
@pytest.mark.parametrize("tag", RECIPES)
def test_the_errors_of_a_recipe_are_small(tag):
    imports = [line for line in MORE[0][0].splitlines() if line.startswith("import ")]
    # Without a switch: what needs float64 turns it on.
    as_a_reader = {"MPLBACKEND": "agg", "JAX_ENABLE_X64": "0"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*imports, RECIPES[tag], TESTS[tag]])],
        env=os.environ | as_a_reader,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("blocks", [README, CELLS], ids=["README", "chapter"])
def test_only_public_names_are_used(blocks):
    public = {
        name
        for name, value in vars(hpx).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    used, imported = set(), set()
    for block in blocks:
        for node in ast.walk(ast.parse(re.sub(r"^%.*$", "", block, flags=re.M))):
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_"), node.attr
                if isinstance(node.value, ast.Name) and node.value.id == "hpx":
                    used.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
    assert {"AbstractPDE", "Box"} <= used <= public
    assert {name for name in imported if name.startswith("hyperpinn_eqx")} == {
        "hyperpinn_eqx"
    }
