"""The code that a chapter builds is the code that the package ships.

Definitions are taken out of the notebooks, run, and compared with the package.
"""

import ast
import json
import math
import pathlib
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import hyperpinn_eqx as hpx
from hyperpinn_eqx.dynamics import multistep
from hyperpinn_eqx.training.linear_system import compressed_rows, linearise, solve

BOOK = pathlib.Path(__file__).parents[2] / "book"


@pytest.fixture(autouse=True)
def as_a_reader_runs_it(x64):
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def parsed(chapter):
    """The statements of each code cell."""
    book = json.loads((BOOK / f"{chapter}.ipynb").read_text("utf-8"))
    cells = [
        "".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"
    ]
    return [ast.parse(re.sub(r"^%.*$", "", cell, flags=re.M)).body for cell in cells]


def bound(statement):
    """The names that a statement binds."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Assign):
        names = (n for target in statement.targets for n in ast.walk(target))
        return {name.id for name in names if isinstance(name, ast.Name)}
    return set()


def execute(statements, namespace):
    exec(compile(ast.Module(statements, []), "chapter", "exec"), namespace)


def imports(cells):
    return [
        s for cell in cells for s in cell if isinstance(s, ast.Import | ast.ImportFrom)
    ]


def define(chapter, *names, **given):
    """The namespace after the first statements that bind these names, in this order."""
    cells, namespace = parsed(chapter), {}
    execute(imports(cells), namespace)
    namespace.update(given)
    for name in names:
        statement = next(s for cell in cells for s in cell if name in bound(s))
        execute([statement], namespace)
    return namespace


def run(chapter, first, last):
    """The namespace after the cells from that which binds `first` to that of `last`."""
    cells, namespace = parsed(chapter), {}
    execute(imports(cells), namespace)
    binding = [set().union(*map(bound, cell)) for cell in cells]
    start = next(i for i, names in enumerate(binding) if first in names)
    stop = next(i for i, names in enumerate(binding) if last in names and i >= start)
    for cell in cells[start : stop + 1]:
        execute(cell, namespace)
    return namespace


# --- Families of differential equations -----------------------------------------------


def test_the_exact_solution():
    chapter = define("families", "cole_hopf")
    rng = np.random.default_rng(0)
    t, x = rng.uniform(0.01, 1, 200), rng.uniform(-1, 1, 200)
    nu = np.geomspace(0.001, 0.1, 200)
    ours = [chapter["cole_hopf"](*point) for point in zip(t, x, nu, strict=True)]
    np.testing.assert_allclose(ours, hpx.Burgers().exact(t, x, nu), atol=1e-13)


# --- A PINN from scratch --------------------------------------------------------------


@pytest.fixture
def pinn():
    names = ("Network", "residual", "problem", "initial", "data", "wanted")
    return define("pinn", *names, "data_loss", "physics_loss", "make_chunk")


def moved(network):
    """The chapter's network as the package's, with the same weights."""
    spec = hpx.MainNetSpec((2, 8, 8, 8, 8, 8, 8, 1), hpx.Burgers().domain)
    weights = tuple(layer.weight for layer in network.layers)
    biases = tuple(layer.bias for layer in network.layers)
    return hpx.MainNet(weights, biases, spec)


def as_family(network):
    return hpx.SingleNet(moved(network), hpx.Burgers().parameters)


@pytest.fixture
def network(pinn):
    return pinn["Network"](jr.key(0))


@pytest.fixture
def points():
    return hpx.uniform(hpx.Burgers().domain, (50,), key=jr.key(1))


def test_the_network(network, points):
    ours, package = jax.vmap(network)(points), jax.vmap(moved(network))(points)
    np.testing.assert_allclose(ours, package, atol=1e-14)


def test_the_residual(pinn, network, points):
    ours = jax.jit(jax.vmap(lambda tx: pinn["residual"](network, tx, 0.01)))(points)
    package = hpx.residuals(moved(network), hpx.Burgers(), jnp.array([0.01]), points)
    np.testing.assert_allclose(ours, package, rtol=1e-10, atol=1e-12)


def test_the_loss(pinn, network, points):
    edges = pinn["initial"], pinn["boundary"]
    batch = hpx.Batch(jnp.array([[0.01]]), points[None], *edges)
    package = hpx.pinn_loss(as_family(network), hpx.Burgers(), batch, alpha=0.3).terms
    physics = jax.jit(pinn["physics_loss"])(network, points, 0.01)
    np.testing.assert_allclose(pinn["data_loss"](network), package["data"], rtol=1e-12)
    np.testing.assert_allclose(0.3 * physics, package["physics"], rtol=1e-10)


def test_the_training_loop(pinn, network):
    optimiser, key = optax.adam(1e-2), jr.key(2)
    keys = jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(5))
    carry = network, optimiser.init(network)
    (ours, _), _ = pinn["make_chunk"](0.03, optimiser, 0.3)(carry, keys)

    def loss(model, key):
        points = hpx.uniform(hpx.Burgers().domain, (256,), key=key)[None]
        edges = pinn["initial"], pinn["boundary"]
        batch = hpx.Batch(jnp.array([[0.03]]), points, *edges)
        return hpx.pinn_loss(model, hpx.Burgers(), batch, alpha=0.3)

    options = {"steps": 5, "key": key, "progress": False}
    package = hpx.fit(as_family(network), loss, optimiser, **options).model
    # Adam divides by gradients that may be as small as round-off.
    np.testing.assert_allclose(moved(ours).flatten(), package.net.flatten(), atol=1e-6)
    assert not np.allclose(moved(ours).flatten(), moved(network).flatten(), atol=1e-3)


def test_the_error(network):
    chapter = define("pinn", "mean_squared_error", problem=hpx.Burgers())
    package = hpx.family_error(as_family(network), hpx.Burgers(), n_lam=2).mse
    ours = [chapter["mean_squared_error"](moved(network), nu) for nu in (0.001, 0.1)]
    np.testing.assert_allclose(ours, package, rtol=1e-12)


# --- One network for every ν ----------------------------------------------------------


def test_folding():
    names = ("problem", "small_shape", "small", "u", "W", "s", "first", "folded")
    chapter = define("one-network", *names)
    np.testing.assert_allclose(chapter["first"], chapter["folded"], atol=1e-14)
    # And so for the whole network, one layer after the other.
    small, h = chapter["small"], chapter["first"]
    layers = list(zip(small.net.weights, small.net.biases, strict=True))[1:]
    for i, (w, b) in enumerate(layers):
        h = w @ h + b if i == len(layers) - 1 else jnp.tanh(w @ h + b)
    # The chapter's inputs 0 and 0.25 are scaled; t = 0.5 is the middle of its range.
    np.testing.assert_allclose(h[0], small(0.003)(jnp.array([0.5, 0.25])), atol=1e-13)


# --- Hypernetworks and HyperPINN ------------------------------------------------------


@pytest.fixture
def hyperpinn():
    names = ("problem", "shape", "sizes", "keys", "trunk", "head", "hypernetwork")
    return define("hyperpinn", *names, "model", "ours", "activations")


@pytest.mark.parametrize("nu", (0.001, 0.013, 0.1))
def test_the_hypernetwork(hyperpinn, nu):
    by_hand, package = hyperpinn["hypernetwork"](nu), hyperpinn["ours"](nu)
    np.testing.assert_allclose(by_hand.flatten(), package.flatten(), atol=1e-13)
    assert hpx.count_parameters(hyperpinn["ours"]) == 9385


def test_the_layers_of_a_generated_network(hyperpinn, points):
    net = hyperpinn["ours"](0.01)
    last = hyperpinn["activations"](net, points[0])[-1]
    by_hand = (net.weights[-1] @ last + net.biases[-1])[0]
    np.testing.assert_allclose(by_hand, net(points[0]), atol=1e-14)


# --- Beyond Adam: Gauss-Newton through a hypernetwork ---------------------------------


def trained(model):
    return jax.tree.map(eqx.is_inexact_array, model)


def test_the_kernel_and_the_step():
    chapter = run("gauss-newton", "Heat", "step")
    tiny, lams, items = chapter["tiny"], chapter["lams"], chapter["items"]
    system = linearise(
        chapter["heat_rows"], 25, trained(tiny), tiny, lams, items, jr.key(5)
    )
    assert system.rows is not None  # in its dual form
    np.testing.assert_allclose(chapter["kernel"], system.matrix, rtol=1e-9, atol=1e-12)

    mu = jnp.asarray(chapter["mu"])
    model, promised = solve(trained(tiny), tiny, lams, system, mu)
    package = ravel_pytree(model)[0] - ravel_pytree(tiny)[0]
    by_hand, dense = ravel_pytree(chapter["step"])[0], chapter["dense"]
    size = np.linalg.norm(package)
    assert np.linalg.norm(by_hand - package) < 1e-9 * size
    assert np.linalg.norm(dense - package) < 1e-9 * size

    r = chapter["residuals"](tiny, lams, items)
    fall = r @ r - np.sum((r + chapter["J"] @ dense) ** 2)
    np.testing.assert_allclose(fall, promised, rtol=1e-9)


def test_the_step_with_compressed_rows():
    chapter = run("gauss-newton", "Heat", "items")
    heat_rows, shape = chapter["heat_rows"], chapter["shape"]
    model = hpx.SingleNet(shape.init(key=jr.key(6)), chapter["heat"].parameters)
    lams, items = chapter["lams"][:1], chapter["items"]
    one = jax.tree.map(lambda a: a[0], items)
    n = sum(len(part.scale) for part in one)
    A, r = compressed_rows(heat_rows, jnp.ones((shape.size, n)), model, lams[0], one)
    assert A.shape == (n, shape.size)  # nothing is cut yet

    k, mu = 8, 1e-4
    Q = np.linalg.qr(A @ jr.normal(jr.key(7), (shape.size, k)))[0]
    by_hand = define("gauss-newton", "promised", A=np.asarray(A), r=np.asarray(r))
    batch = jax.tree.map(lambda a: a[:1], items)
    system = linearise(heat_rows, k, trained(model), model, lams, batch, jr.key(7))
    assert system.matrix.shape == (k, k)
    after, _ = solve(trained(model), model, lams, system, jnp.asarray(mu))
    step = after.net.flatten() - model.net.flatten()
    package = r @ r - np.sum((r + A @ step) ** 2)
    np.testing.assert_allclose(by_hand["promised"](Q, mu), package, rtol=1e-9)


def test_the_two_forms_of_a_step():
    rng = np.random.default_rng(0)
    given = {"A": rng.normal(size=(10, 30)), "r": rng.normal(size=10), "P": 30}
    chapter = define("gauss-newton", **given, mu=0.1)
    statements = [
        s
        for cell in parsed("gauss-newton")
        for s in cell
        if bound(s) & {"primal", "dual"}
    ]
    source = ast.unparse(ast.Module(statements, [])).replace("100", "10")
    execute(ast.parse(source).body, chapter)
    np.testing.assert_allclose(chapter["primal"], chapter["dual"], rtol=1e-9)


def test_distillation():
    domain = hpx.Box(t=(0, 1), x=(-1, 1))
    shape = hpx.MainNetSpec((2, 4, 2, 1), domain)
    kappa = hpx.Box(kappa=(0.01, 1.0, "log"))
    start = hpx.HyperPINN(shape, kappa, (4, 3), key=jr.key(0))
    lams = jnp.geomspace(0.01, 1, 12)[:, None]
    path = jnp.sin(lams * jr.normal(jr.key(1), (shape.size,)))
    chapter = define("gauss-newton", "theta0", "vt", "best_head", path=path)
    W, z = chapter["best_head"](3)

    options = {"steps": 1, "rate": 0.0, "key": jr.key(2), "progress": False}
    result = hpx.distill(start, lams, path, **options)
    np.testing.assert_allclose(result.model.theta0, chapter["theta0"], atol=1e-14)
    length = jnp.linalg.norm(result.model.head, axis=0)
    np.testing.assert_allclose(result.model.head / length, W, atol=1e-10)
    scaled = jax.vmap(kappa.scale)(lams)
    missed = jax.vmap(start.features)(scaled) - z / length
    loss = result.history["features"][0]
    np.testing.assert_allclose(jnp.mean(missed**2), loss, rtol=1e-9)


# --- Learning dynamics from data ------------------------------------------------------


def field(x):
    """Some smooth field in three dimensions."""
    return jnp.stack([jnp.sin(x[1]), x[0] * x[2], jnp.cos(x[0]) - x[2]])


def test_the_multistep_residual():
    chapter = define("multistep", "trapezoid_residual")
    x = jr.normal(jr.key(0), (2, 3))
    by_hand = chapter["trapezoid_residual"](field, *x, 0.1)
    package = multistep.residual(hpx.adams_moulton(1), field, x, 0.1)
    np.testing.assert_allclose(by_hand, package, rtol=1e-12)


def test_the_bias_removed():
    chapter = define("multistep", "lie", "without_bias")
    x = jr.normal(jr.key(1), (3,))
    by_hand = chapter["without_bias"](field, 0.1)(x)
    package = hpx.remove_bias(field, hpx.adams_moulton(1), 0.1)(x)
    np.testing.assert_allclose(by_hand, package, rtol=1e-12)
    assert np.linalg.norm(package - field(x)) > 1e-4


@pytest.mark.parametrize(
    "scheme",
    (hpx.adams_moulton(1), hpx.adams_moulton(2), hpx.adams_bashforth(2)),
    ids=lambda scheme: scheme.name,
)
def test_how_errors_of_a_slope_grow(scheme):
    errors = define("multistep", "carried")["carried"](scheme)
    growth = errors[-1] / errors[-2]
    assert math.isclose(growth, scheme.discovery_root, rel_tol=1e-6)


# --- HyperPINN for the Lorenz family --------------------------------------------------


@pytest.mark.parametrize("name", ("lorenz-hyperpinn", "lorenz-small", "lorenz-large"))
def test_the_record_of_the_table_is_of_the_shipped_weights(name):
    record = json.loads((BOOK / "data" / "lorenz-table.json").read_text("utf-8"))
    row, card = record["rows"][name], hpx.load_card(name)["error"]
    assert math.isclose(row["field"], card["field_relative_l2"], rel_tol=1e-4)
    assert math.isclose(np.mean(row["mse"]), card["mse_mean"], rel_tol=1e-3)


# --- The inverse problem --------------------------------------------------------------


def test_inference_by_hand():
    chapter = run("inverse", "problem", "covariance")
    box, best, predict = chapter["box"], chapter["best"], chapter["predict"]
    package = hpx.infer(predict, chapter["seen"], box, noise=chapter["noise"])
    np.testing.assert_allclose(box.unscale(best), package.lam, rtol=1e-4)
    np.testing.assert_allclose(chapter["covariance"], package.covariance, rtol=1e-3)

    s, posterior = chapter["s"], chapter["posterior"]
    below = np.cumsum(posterior) / posterior.sum()
    for level in (0.5, 0.9):
        ends = np.interp([(1 - level) / 2, (1 + level) / 2], below, s)
        found = box.scale(np.stack(package.interval(level)))[:, 0]
        assert np.abs(found - ends).max() < 0.02 * np.diff(ends)
