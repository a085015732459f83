"""No special case for the paper's equations in what trains, samples, or draws."""

import ast
import pathlib
import re

import matplotlib

matplotlib.use("Agg")

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
import pytest

import hyperpinn_eqx as hpx

PACKAGE = pathlib.Path(hpx.__file__).parent
# Who may know one: problems, what is made for one problem, and what prints tables.
KNOWING = {
    *("__init__", "live/__init__", "problems/__init__", "problems/burgers"),
    *("problems/burgers_reference", "problems/burgers_wave", "problems/lorenz"),
}
MODULES = {
    file.relative_to(PACKAGE).with_suffix("").as_posix(): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
GENERAL = [
    name for name in MODULES if name not in KNOWING and not name.startswith("paper/")
]


def mentions(code):
    """Where code names one of the paper's equations; comments and docstrings may."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(getattr(body[0], "value", None), ast.Constant):
                body[0].value = ast.Constant(0)
    # Names, attributes, modules and texts: all that is left is code.
    return re.findall(r".*(?:burgers|lorenz|\bnu\b).*", ast.unparse(tree), re.I)


@pytest.mark.parametrize("name", GENERAL)
def test_no_code_names_an_equation_of_the_paper(name):
    assert mentions(MODULES[name].read_text("utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "from .problems import Burgers",
        "from .problems.burgers import sine_wave",
        "def f(problem):\n    return isinstance(problem, problems.Lorenz)",
        "def f(name='burgers'):\n    'Of the Lorenz system.'",
        "x = {'nu': 1}",
    ],
)
def test_code_that_does_is_found(code):
    assert len(mentions(code)) == 1
    # Comments and docstrings may.
    assert mentions('"""Burgers."""\nclass A:\n    "Lorenz"\n    x: int  # ν\n') == []
    assert {"box", "physics/pinn", "training/fit", "recipes/family"} <= set(GENERAL)


class Spiral(hpx.AbstractPDE):
    """Other letters in another order, time in the middle, and two parameters."""

    domain = hpx.Box(z=(2, 5), t=(1, 3), w=(0, 1, "periodic"))
    parameters = hpx.Box(q=(0.1, 1.0, "log"), p=(-1, 1, "periodic"))

    def residual(self, u, ztw, lam):
        q, p = lam
        return u.t + q * u.z - (1 + jnp.cos(jnp.pi * p)) * u.ww / 100

    @hpx.condition(t=1)
    def begin(self, u, ztw, lam):
        return u.value - self.exact(*ztw, lam)

    @hpx.condition(z=2)
    def inflow(self, u, ztw, lam):
        return u.value - self.exact(*ztw, lam)

    def exact(self, z, t, w, lam):
        return jnp.sin(z - lam[0] * (t - 1)) + 0 * w


class Rod(hpx.AbstractPDE):
    """A stationary family: no time, and one parameter."""

    domain = hpx.Box(s=(-1, 2))
    parameters = hpx.Box(k=(1, 3))

    def residual(self, u, s, lam):
        return u.ss - 2 * lam

    @hpx.condition(s=-1)
    def end(self, u, s, lam):
        return u.value - self.exact(s[0], lam)

    @hpx.condition(s=2)
    def flow(self, u, s, lam):
        return u.n - 4 * lam

    def exact(self, s, lam):
        return lam * s**2


class Pair(hpx.AbstractPDE):
    """Two fields that turn into each other."""

    fields = ("a", "b")
    domain = hpx.Box(t=(0, 2))
    parameters = hpx.Box(w=(0.5, 1.5))

    def residual(self, ab, t, lam):
        a, b = ab
        return a.t - lam * b.value, b.t + lam * a.value

    @hpx.condition(t=0)
    def begin(self, ab, t, lam):
        return ab[0].value - 3, ab[1].value

    def exact(self, t, lam):
        return 3 * jnp.cos(lam * t), -3 * jnp.sin(lam * t)


FAMILIES = {"spiral": Spiral(), "rod": Rod(), "pair": Pair()}


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def trained(request):
    """A family after samplers, loss, Adam and Gauss-Newton."""
    settings = {"main": (5,), "hidden": (4, 3), "n_lam": 8, "n_points": 16}
    settings |= {"n_conditions": 12, "adam_steps": 60, "newton_steps": 24}
    options = {"rank": 16, "progress": False, "key": jr.key(0)}
    return request.param, hpx.train_family(request.param, **settings, **options)


def test_any_family_is_trained_and_measured_at_its_parameters(trained):
    problem, result = trained
    adam, *newton = result.history["total"]
    assert newton[-1] < 0.1 * adam
    error = hpx.family_error(result.model, problem, n_lam=4, n_t=3, n_x=4)
    assert np.median(error.relative_l2) < 0.3
    assert error.lam.shape == (4, 2)[: len(problem.parameters)]
    # By hand, at the last λ.
    lam = error.lam[-1]
    shape = [3 if name == "t" else 4 for name in problem.domain.names]
    ends = zip(problem.domain.low, problem.domain.high, shape, strict=True)
    grid = np.meshgrid(*(np.linspace(*end) for end in ends), indexing="ij")
    points = np.stack(grid, -1).reshape(-1, len(grid))
    with jax.enable_x64(True):
        u = jax.vmap(result.model(lam))(jnp.asarray(points))
        true = np.stack(jax.tree.leaves(problem.exact(*grid, lam)), axis=-1)
        expected = np.mean((u.reshape(*shape, -1) - true) ** 2)
    np.testing.assert_allclose(error.mse[-1], expected, rtol=1e-9)


def test_any_family_is_drawn(trained, x64):
    problem, result = trained
    figure, axes = plt.subplots(1, 2)
    error = hpx.family_error(result.model, problem, n_lam=4, n_t=3, n_x=4)
    last = len(problem.parameters) - 1
    hpx.plot_errors(axes[0], {"model": error}, parameter=last)
    drawn = axes[0].lines[0].get_xdata()
    np.testing.assert_array_equal(drawn, error.lam.reshape(4, -1)[:, last])
    if isinstance(problem, Spiral):
        lam = error.lam[-1]
        nets = {"HyperPINN": result.model(lam)}
        hpx.plot_slices(axes, lam, nets, problem=problem, at={"z": 3.0})
        assert axes[0].get_xlabel() == "$w$" and axes[1].get_title() == "$t = 3$"
        labels = [line.get_label() for line in axes[1].lines]
        assert labels == ["exact", "HyperPINN"]
    if isinstance(problem, Pair):
        for measured in error.fields.values():
            hpx.plot_errors(axes[1], {"model": measured})
    plt.close(figure)
