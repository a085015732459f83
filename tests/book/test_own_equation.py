"""The chapter on the reader's own equation: its class, and what it may use."""

import ast
import inspect
import json
import pathlib
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

ROOT = pathlib.Path(__file__).parents[2]
CELLS = [
    "".join(cell["source"])
    for cell in json.loads((ROOT / "book/own-equation.ipynb").read_text("utf-8"))[
        "cells"
    ]
    if cell["cell_type"] == "code"
]
(FISHER,) = (cell for cell in CELLS if cell.startswith("class Fisher("))
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


def test_an_equation_takes_twenty_lines_at_most():
    lines = [line for line in FISHER.splitlines() if line.strip()]
    assert len(lines) <= 20


@pytest.mark.parametrize("D", [0.01, 0.1, 1.0])
def test_the_exact_solution_solves_the_equation(D, x64):
    assert largest_residual(FISHER, D) < 1e-14


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("u.t - lam * u.xx", "u.t + lam * u.xx"),
        ("u.xx - u.value", "u.xx + u.value"),
        ("(1 - u.value)", "(1 + u.value)"),
    ],
)
@pytest.mark.parametrize("D", [0.01, 0.1, 1.0])
def test_any_wrong_sign_is_caught(right, wrong, D, x64):
    assert FISHER.count(right) == 1
    assert largest_residual(FISHER.replace(right, wrong), D) > 1e-2


@pytest.mark.parametrize("D", [0.01, 0.1, 1.0])
def test_initial_and_boundary_values_are_those_of_the_formula(D, x64):
    problem = run(FISHER)

    def formula(t, x):
        return (1 + np.exp((x - 1 - 5 * np.sqrt(D / 6) * t) / np.sqrt(6 * D))) ** -2

    initial, boundary = POINTS * [0, 1], np.where(POINTS > 5, 10.0, 0.0)
    boundary[:, 0] = POINTS[:, 0]
    for values, points in ((problem.initial, initial), (problem.boundary, boundary)):
        found = jax.vmap(values, (0, None))(jnp.asarray(points), jnp.asarray(D))
        np.testing.assert_allclose(found, formula(*points.T), rtol=1e-12)


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
