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
from hyperpinn_eqx.physics.sampling import Places
from hyperpinn_eqx.training.linear_system import compressed_rows, linearise, solve

BOOK = pathlib.Path(__file__).parents[2] / "book"
close = np.testing.assert_allclose


@pytest.fixture(autouse=True)
def as_a_reader_runs_it(x64):
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def parsed(chapter):
    """The statements of each code cell."""
    book = json.loads((BOOK / f"{chapter}.ipynb").read_text("utf-8"))
    cells = ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]
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


def imported(cells):
    """The namespace after a chapter's imports."""
    namespace = {}
    kinds = ast.Import | ast.ImportFrom
    execute([s for cell in cells for s in cell if isinstance(s, kinds)], namespace)
    return namespace


def define(chapter, *names, **given):
    """The namespace after the first statements that bind these names, in this order."""
    cells = parsed(chapter)
    namespace = imported(cells) | given
    for name in names:
        execute([next(s for c in cells for s in c if name in bound(s))], namespace)
    return namespace


def run(chapter, first, last):
    """The namespace after the cells from that which binds `first` to that of `last`."""
    cells = parsed(chapter)
    namespace = imported(cells)
    binding = [set().union(*map(bound, cell)) for cell in cells]
    start = next(i for i, names in enumerate(binding) if first in names)
    stop = next(i for i, names in enumerate(binding) if last in names and i >= start)
    for cell in cells[start : stop + 1]:
        execute(cell, namespace)
    return namespace


def test_the_exact_solution():
    chapter = define("families", "cole_hopf")
    rng = np.random.default_rng(0)
    t, x = rng.uniform(0.01, 1, 200), rng.uniform(-1, 1, 200)
    nu = np.geomspace(0.001, 0.1, 200)
    ours = [chapter["cole_hopf"](*point) for point in zip(t, x, nu, strict=True)]
    close(ours, hpx.Burgers().exact(t, x, nu), atol=1e-13)


# --- A PINN from scratch --------------------------------------------------------------

PROBLEM = hpx.Burgers()


@pytest.fixture
def pinn():
    points = ("problem", "keys", "x", "t", "at_start", "at_walls")
    losses = ("start", "walls", "mean_square", "edge_loss", "physics_loss")
    return define("pinn", "Network", "residual", *points, *losses, "make_chunk")


def moved(network):
    """The chapter's network as the package's, with the same weights."""
    spec = hpx.MainNetSpec((2, 8, 8, 8, 8, 8, 8, 1), PROBLEM.domain)
    weights, biases = zip(*((la.weight, la.bias) for la in network.layers), strict=True)
    return hpx.MainNet(weights, biases, spec)


def as_family(network):
    return hpx.SingleNet(moved(network), PROBLEM.parameters)


@pytest.fixture
def network(pinn):
    return pinn["Network"](jr.key(0))


@pytest.fixture
def points():
    return hpx.uniform(PROBLEM.domain, 50, key=jr.key(1))


def test_the_network_and_its_residual(pinn, network, points):
    net = moved(network)
    close(jax.vmap(network)(points), jax.vmap(net)(points), atol=1e-14)
    ours = jax.jit(jax.vmap(lambda tx: pinn["residual"](network, tx, 0.01)))(points)
    package = hpx.residuals(net, PROBLEM, jnp.array([0.01]), points)
    close(ours, package, rtol=1e-10, atol=1e-12)


def at_the_points_of(pinn, nu, points):
    """A batch of the package with the chapter's points."""
    items = {"physics": points[None]}
    for name in ("start", "walls"):
        at = pinn[f"at_{name}"]
        items[name] = Places(at[None], jnp.zeros_like(at)[None])
    return hpx.Batch(jnp.array([[nu]]), items)


LOSS = hpx.PINNLoss(PROBLEM, weights={"physics": 0.3})


def test_each_term_of_the_loss(pinn, network, points):
    package = LOSS(as_family(network), at_the_points_of(pinn, 0.01, points)).terms
    assert [*package] == ["physics", *PROBLEM.conditions]
    for name in PROBLEM.conditions:
        ours = pinn["mean_square"](pinn[name], network, pinn[f"at_{name}"])
        close(ours, package[name], rtol=1e-12)
    close(pinn["edge_loss"](network), package["start"] + package["walls"], rtol=1e-12)
    physics = jax.jit(pinn["physics_loss"])(network, points, 0.01)
    close(0.3 * physics, package["physics"], rtol=1e-10)


def test_the_training_loop(pinn, network):
    optimiser, key = optax.adam(1e-2), jr.key(2)
    keys = jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(5))
    carry = network, optimiser.init(network)
    (ours, _), _ = pinn["make_chunk"](0.03, optimiser, 0.3)(carry, keys)

    def loss(model, key):
        points = hpx.uniform(PROBLEM.domain, (256,), key=key)
        return LOSS(model, at_the_points_of(pinn, 0.03, points))

    options = {"steps": 5, "key": key, "progress": False}
    package = hpx.fit(as_family(network), loss, optimiser, **options).model
    # Adam divides by gradients that may be as small as round-off.
    close(moved(ours).flatten(), package.net.flatten(), atol=1e-6)
    assert not np.allclose(moved(ours).flatten(), moved(network).flatten(), atol=1e-3)


def test_the_error(network):
    chapter = define("pinn", "mean_squared_error", problem=PROBLEM)
    ours = [chapter["mean_squared_error"](moved(network), nu) for nu in (0.001, 0.1)]
    package = hpx.family_error(as_family(network), PROBLEM, n_lam=2).mse
    close(ours, package, rtol=1e-12)


# --- One network for every ν, hypernetworks -------------------------------------------


def test_folding():
    names = ("problem", "small_shape", "small", "u", "W", "s", "first", "folded")
    chapter = define("one-network", *names)
    close(chapter["first"], chapter["folded"], atol=1e-14)
    # And so for the whole network, one layer after the other.
    small, h = chapter["small"], chapter["first"]
    layers = list(zip(small.net.weights, small.net.biases, strict=True))[1:]
    for w, b in layers[:-1]:
        h = jnp.tanh(w @ h + b)
    w, b = layers[-1]
    # The chapter's inputs 0 and 0.25 are scaled; t = 0.5 is the middle of its range.
    close(w @ h + b, small(0.003)(jnp.array([0.5, 0.25])), atol=1e-13)


def test_the_hypernetwork_and_a_network_that_it_generates(points):
    names = ("problem", "shape", "sizes", "keys", "trunk", "head", "hypernetwork")
    chapter = define("hyperpinn", *names, "model", "ours", "activations")
    assert hpx.count_parameters(chapter["ours"]) == 9385
    for nu in (0.001, 0.013, 0.1):
        by_hand, net = chapter["hypernetwork"](nu), chapter["ours"](nu)
        close(by_hand.flatten(), net.flatten(), atol=1e-13)
    last = chapter["activations"](net, points[0])[-1]
    close((net.weights[-1] @ last + net.biases[-1])[0], net(points[0]), atol=1e-14)


# --- Beyond Adam: Gauss-Newton through a hypernetwork ---------------------------------


def trained(model):
    return jax.tree.map(eqx.is_inexact_array, model)


def test_the_kernel_and_the_step():
    chapter = run("gauss-newton", "Heat", "step")
    tiny, batch, mu = chapter["tiny"], chapter["batch"], jnp.asarray(chapter["mu"])
    system = linearise(chapter["heat_loss"], 25, trained(tiny), tiny, batch, jr.key(5))
    assert system.rows is not None  # in its dual form
    close(chapter["kernel"], system.matrix, rtol=1e-9, atol=1e-12)

    loss = chapter["heat_loss"]
    # With so little damping the package does not bend its step.
    model, promised = solve(loss, trained(tiny), tiny, batch, system, mu)
    package = ravel_pytree(model)[0] - ravel_pytree(tiny)[0]
    for step in (ravel_pytree(chapter["step"])[0], chapter["dense"]):
        assert np.linalg.norm(step - package) < 1e-9 * np.linalg.norm(package)
    r = chapter["residuals"](tiny, batch)
    fall = r @ r - np.sum((r + chapter["J"] @ chapter["dense"]) ** 2)
    close(fall, promised, rtol=1e-9)


def test_a_bent_step():
    chapter = run("gauss-newton", "Heat", "tried")
    loss, model, batch = (chapter[n] for n in ("heat_loss", "run", "batch"))
    model, mu = model.model, 0.03
    system = linearise(loss, 25, trained(model), model, batch, jr.key(7))
    after, fall = solve(loss, trained(model), model, batch, system, jnp.asarray(mu))
    promised, straight, bent = chapter["tried"](mu)
    close(loss(model, batch).total - fall, promised, rtol=1e-9)
    close(loss(after, batch).total, bent, rtol=1e-9)
    assert abs(bent - straight) > 1e-3 * straight


def test_the_step_with_compressed_rows():
    chapter = run("gauss-newton", "Heat", "batch")
    loss, shape = chapter["heat_loss"], chapter["shape"]
    model = hpx.SingleNet(shape.init(key=jr.key(6)), chapter["heat"].parameters)
    batch = jax.tree.map(lambda a: a[:1], chapter["batch"])
    one = jax.tree.map(lambda a: a[0], batch.items)
    n = sum(len(jax.tree.leaves(part)[0]) for part in one.values())
    ones = jnp.ones((shape.size, n))
    A, r, _ = compressed_rows(loss, ones, model, batch.lam[0], one)
    assert A.shape == (n, shape.size)  # nothing is cut yet

    k, mu = 8, 1e-4
    Q = np.linalg.qr(A @ jr.normal(jr.key(7), (shape.size, k)))[0]
    given = {"A": np.asarray(A), "r": np.asarray(r), "P": shape.size, "mu": mu}
    by_hand = define("gauss-newton", "share", "refined", **given)
    system = linearise(loss, k, trained(model), model, batch, jr.key(7))
    assert system.matrix.shape == (k, k)
    J = Q.T @ A
    alone = -J.T @ np.linalg.solve(J @ J.T + mu * np.eye(k), Q.T @ r)
    y = np.linalg.solve(system.matrix + mu * np.eye(k), -system.right)
    close(alone, system.rows[0].T @ y, rtol=1e-9)
    step = by_hand["refined"](alone, J)
    _, fall = solve(loss, trained(model), model, batch, system, jnp.asarray(mu))
    close(r @ r - np.sum((r + A @ step) ** 2), fall, rtol=1e-5)
    assert by_hand["share"](alone) < 0.999 < by_hand["share"](step)


def test_the_two_forms_of_a_step():
    rng = np.random.default_rng(0)
    given = {"A": rng.normal(size=(10, 30)), "r": rng.normal(size=10), "P": 30}
    chapter = define("gauss-newton", **given, mu=0.1)
    statements = [
        s for c in parsed("gauss-newton") for s in c if bound(s) & {"primal", "dual"}
    ]
    source = ast.unparse(ast.Module(statements, [])).replace("100", "10")
    execute(ast.parse(source).body, chapter)
    close(chapter["primal"], chapter["dual"], rtol=1e-9)


def test_distillation():
    shape = hpx.MainNetSpec((2, 4, 2, 1), hpx.Box(t=(0, 1), x=(-1, 1)))
    kappa = hpx.Box(kappa=(0.01, 1.0, "log"))
    start = hpx.HyperPINN(shape, kappa, (4, 3), key=jr.key(0))
    lams = jnp.geomspace(0.01, 1, 12)[:, None]
    path = hpx.Path(lams, jnp.sin(lams * jr.normal(jr.key(1), (shape.size,))))
    chapter = define("gauss-newton", "theta0", "vt", "best_head", path=path)
    W, z = chapter["best_head"](3)

    options = {"steps": 1, "rate": 0.0, "key": jr.key(2), "progress": False}
    result = hpx.distill(start, path, **options)
    close(result.model.theta0, chapter["theta0"], atol=1e-14)
    length = jnp.linalg.norm(result.model.head, axis=0)
    close(result.model.head / length, W, atol=1e-10)
    missed = jax.vmap(lambda lam: start.trunk(kappa.scale(lam)))(lams) - z / length
    close(jnp.mean(missed**2), result.history["features"][0], rtol=1e-9)


# --- Dynamics, and the inverse problem ------------------------------------------------


def field(x):
    """Some smooth field in three dimensions."""
    return jnp.stack([jnp.sin(x[1]), x[0] * x[2], jnp.cos(x[0]) - x[2]])


def test_the_multistep_residual_and_the_bias_removed():
    chapter = define("multistep", "trapezoid_residual", "lie", "without_bias")
    x, trapezoid = jr.normal(jr.key(0), (2, 3)), hpx.adams_moulton(1)
    by_hand = chapter["trapezoid_residual"](field, *x, 0.1)
    close(by_hand, multistep.residual(trapezoid, field, x, 0.1), rtol=1e-12)
    package = hpx.remove_bias(field, trapezoid, 0.1)(x[0])
    close(chapter["without_bias"](field, 0.1)(x[0]), package, rtol=1e-12)
    assert np.linalg.norm(package - field(x[0])) > 1e-4


@pytest.mark.parametrize(
    "scheme",
    (hpx.adams_moulton(1), hpx.adams_moulton(2), hpx.adams_bashforth(2)),
    ids=lambda scheme: scheme.name,
)
def test_how_errors_of_a_slope_grow(scheme):
    errors = define("multistep", "carried")["carried"](scheme)
    assert math.isclose(errors[-1] / errors[-2], scheme.discovery_root, rel_tol=1e-6)


def test_inference_by_hand():
    chapter = run("inverse", "problem", "covariance")
    box, best, predict = chapter["box"], chapter["best"], chapter["predict"]
    package = hpx.infer(predict, chapter["seen"], box, noise=chapter["noise"])
    close(box.unscale(best), package.lam, rtol=1e-4)
    close(chapter["covariance"], package.covariance, rtol=1e-3)
    s, posterior = chapter["s"], chapter["posterior"]
    below = np.cumsum(posterior) / posterior.sum()
    for level in (0.5, 0.9):
        ends = np.interp([(1 - level) / 2, (1 + level) / 2], below, s)
        found = box.scale(np.stack(package.interval(level)))[:, 0]
        assert np.abs(found - ends).max() < 0.02 * np.diff(ends)
