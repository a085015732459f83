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
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

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
RECIPE = "\n".join(source for source, tags in MORE if "recipe" in tags)
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


def test_initial_and_boundary_values_are_those_of_the_formula(x64):
    problem = run(FISHER)
    start, walls = POINTS * [0, 1], POINTS * [1, 0] + [0, 10] * (POINTS[:, 1:] > 5)
    for D in (0.01, 0.1, 1.0):
        for values, (t, x) in ((problem.initial, start.T), (problem.boundary, walls.T)):
            found = jax.vmap(values, (0, None))(jnp.stack([t, x], 1), jnp.asarray(D))
            z = (x - 1 - 5 * np.sqrt(D / 6) * t) / np.sqrt(6 * D)
            np.testing.assert_allclose(found, (1 + np.exp(z)) ** -2, rtol=1e-12)


@pytest.mark.slow
def test_the_recipe_takes_twenty_lines_and_its_errors_are_small():
    lines = [line for line in RECIPE.splitlines() if line.strip()]
    own = [line for line in lines if not re.match("import |from .* import", line)]
    assert 10 < len(own) <= 20
    # In a process of its own: a reader has neither our strict modes nor slow kernels.
    imports = [line for line in MORE[0][0].splitlines() if line.startswith("import ")]
    test = """
(curve,) = plt.gca().get_lines()
assert np.array_equal(curve.get_xydata()[:, 1], error.relative_l2)
assert np.median(error.relative_l2) < 1e-3 and len(error.lam) >= 20
"""
    # Without a switch: what needs float64 turns it on.
    as_a_reader = {"MPLBACKEND": "agg", "JAX_ENABLE_X64": "0"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*imports, RECIPE, test])],
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
