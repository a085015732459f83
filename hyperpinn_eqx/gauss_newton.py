"""Gauss-Newton through a hypernetwork: many rows a λ, one small dense system.

The residuals at λ_m depend on the hypernetwork's parameters φ only through the main
network's weights θ_m = θ(λ_m), so that their Jacobian is a product,

    J_m = A_m B_m,    A_m = ∂r_m/∂θ_m,    B_m = ∂θ_m/∂φ.

A_m is the Jacobian of a small network, and its rows are cut to the few directions
that the residuals see. B_m never exists: with θ = θ₀ + W z(λ),

    B_m B_nᵀ = (1 + z_m·z_n) I + W T_m T_nᵀ Wᵀ,    T_m = ∂z_m/∂(trunk),

which gives the kernel J Jᵀ block by block. The damped step is
δφ = -Jᵀ (J Jᵀ + μ I)⁻¹ r. A model with fewer parameters than kept rows is served by
the other form of the same step, δφ = -(JᵀJ + μ I)⁻¹ Jᵀ r.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .hypernet import HyperPINN
from .journal import Journal
from .mainnet import MainNet
from .model import AbstractModel, count_parameters, dtype_of
from .training import FitResult, History, Watch

# From (main network, λ, one item) to one residual.
Row = Callable[[MainNet, Float[Array, " p"], PyTree], Float[Array, ""]]


def gauss_newton(
    model: AbstractModel,
    row: Row,
    draw: Callable[[AbstractModel, PRNGKeyArray], tuple[Float[Array, "M p"], PyTree]],
    *,
    steps: int,
    key: PRNGKeyArray,
    redraw: int = 8,
    damping: float = 1e-2,
    floor: float = 1e-8,
    rank: int = 64,
    frozen: Callable[[AbstractModel], PyTree] | None = None,
    progress: bool = True,
    what: str = "gauss-newton",
    journal: Journal | None = None,
    watch: Watch | None = None,
) -> FitResult:
    """Trains a model by damped Gauss-Newton (Levenberg 1944, Marquardt 1963).

    Minimises the mean over λ of Σ row². Each step is judged on the batch that made it,
    by the ratio of the loss's fall to the fall that the linear model promised. The
    damping μ rises until the loss falls, and then follows that ratio (Nielsen 1999,
    IMM-REP-1999-05).

    Args:
        model: a HyperPINN or a baseline, with float64 weights.
        row: one residual, already multiplied by its weight.
        draw: from a model and a key to M values of λ, shape (M, p), and a PyTree of
            items whose arrays start with shape (M, K): K rows for each λ. It is called
            as it is: compile it yourself.
        steps: how many steps to try.
        key: a JAX random key.
        redraw: steps on one batch before the next is drawn.
        damping: the first μ.
        floor: the least μ; smaller values let a step overfit its batch.
        rank: rows kept for each λ.
        frozen: picks what is not trained, e.g. `lambda m: (m.weights, m.biases)`.
        progress: whether to show a bar.
        what: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every
            step; the result is the same to the bit as without a stop.
        watch: see `Watch`.

    Returns:
        A `FitResult` with the history of "total" and "damping".

    Raises:
        ValueError: the weights are not float64, or the journal's arrays do not fit.
        TrainingStopped: the loss of a batch is not finite.
        Stopped: a stop was requested of the journal, and everything is saved.
    """
    if dtype_of(model) != jnp.float64:
        raise ValueError(
            f"model has {dtype_of(model)} weights, expected float64: Gauss-Newton "
            "squares condition numbers; set jax_enable_x64 before making the model"
        )
    trained = jax.tree.map(eqx.is_inexact_array, model)
    if frozen is not None:
        trained = eqx.tree_at(frozen, trained, replace_fn=lambda _: False)
    rows: list[dict] = []
    if journal is not None:
        batch = eqx.filter_eval_shape(draw, model, key)
        state = (model, jnp.zeros(()), jnp.zeros(()), *batch)
        found, start, rows = journal.restore(what, state)
        if start:
            model, loss, damping, lams, items = found
            loss, damping = float(loss), float(damping)
    history = History(steps, what, progress, rows, watch)
    for i in range(history.done, steps):
        step_key = jr.fold_in(key, i)
        if i % redraw == 0:
            lams, items = draw(model, step_key)
            loss = float(_total(row, model, lams, items))
        system = _linearise(row, rank, trained, model, lams, items, step_key)
        for rise in (2, 4, 8, 16, 32, 64):
            # As an array: a Python float would be compiled in.
            trial, promised = _solve(trained, model, lams, system, jnp.asarray(damping))
            after = float(_total(row, trial, lams, items))
            if after < loss:
                gain = (loss - after) / float(promised)
                damping *= min(max(1 / 3, 1 - (2 * gain - 1) ** 3), 2)
                model, loss, damping = trial, after, max(damping, floor)
                break
            damping *= rise
        history.add(model, 1, {"total": loss, "damping": damping})
        if journal is not None:
            state = (model, jnp.asarray(loss), jnp.asarray(damping), lams, items)
            journal.keep(what, i + 1, state, history.rows)
    return history.result(model)


@eqx.filter_jit
def _total(
    row: Row, model: AbstractModel, lams: Array, items: PyTree
) -> Float[Array, ""]:
    def one(pair: tuple) -> Array:
        lam, items = pair
        net = model(lam)
        return jnp.sum(jax.vmap(lambda item: row(net, lam, item))(items) ** 2)

    return jnp.mean(jax.lax.map(one, (lams, items)))


class _System(eqx.Module):
    """The linear system of one step, but for the damping.

    Dual: `matrix` is J Jᵀ, and `rows` takes its solution back to the weights θ.
    Primal: `matrix` is JᵀJ, and `rows` is None.
    """

    matrix: Float[Array, "n n"]
    right: Float[Array, " n"]
    rows: Float[Array, "M k P"] | None


@eqx.filter_jit
def _linearise(
    row: Row,
    rank: int,
    trained: PyTree,
    model: AbstractModel,
    lams: Array,
    items: PyTree,
    key: PRNGKeyArray,
) -> _System:
    share = 1 / math.sqrt(len(lams))
    if count_parameters(eqx.filter(model, trained)) <= rank * len(lams):
        return _normal_equations(row, trained, model, lams, items)
    rows, r = jax.lax.map(
        lambda pair: compressed_rows(row, rank, model, pair[0], pair[1], key),
        (lams, items),
    )
    rows, r = rows * share, r.ravel() * share
    if isinstance(model, HyperPINN) and all(jax.tree.leaves(trained)):
        return _System(hyper_kernel(model, lams, rows), r, rows)
    dense = dense_jacobian(model, lams, rows, trained)
    return _System(dense @ dense.T, r, rows)


def _normal_equations(
    row: Row, trained: PyTree, model: AbstractModel, lams: Array, items: PyTree
) -> _System:
    """JᵀJ = Σ Bᵀ (AᵀA) B, where A never leaves its λ."""
    n = count_parameters(eqx.filter(model, trained))
    eye = jnp.eye(model(lams[0]).flatten().size)

    def add(total: tuple, pair: tuple) -> tuple[tuple, None]:
        lam, items = pair
        a, r = _rows(row, model, lam, items)
        b = dense_jacobian(model, lam[None], eye[None], trained)
        return (total[0] + b.T @ (a.T @ a) @ b, total[1] + b.T @ (a.T @ r)), None

    zero = (jnp.zeros((n, n)), jnp.zeros(n))
    (matrix, right), _ = jax.lax.scan(add, zero, (lams, items))
    return _System(matrix / len(lams), right / len(lams), None)


@eqx.filter_jit
def _solve(
    trained: PyTree,
    model: AbstractModel,
    lams: Array,
    system: _System,
    damping: Array,
) -> tuple[AbstractModel, Float[Array, ""]]:
    """The model after one step, δφ = -Jᵀ (J Jᵀ + μ I)⁻¹ r = -(JᵀJ + μ I)⁻¹ Jᵀ r.

    And the fall |r|² - |r + J δφ|² of the loss that the linear model promises.
    """
    params, static = eqx.partition(model, trained)
    damped = system.matrix + damping * jnp.eye(len(system.matrix))
    factor = jax.scipy.linalg.cho_factor(damped)
    solution = jax.scipy.linalg.cho_solve(factor, -system.right)
    if system.rows is None:
        update = ravel_pytree(params)[1](solution)
        # J δφ is not at hand, but (JᵀJ + μ I) δφ = -Jᵀ r.
        promised = damping * (solution @ solution) - system.right @ solution
    else:
        m, k, _ = system.rows.shape

        def weights(params: AbstractModel) -> Float[Array, "M P"]:
            family = eqx.combine(params, static)
            return jax.vmap(lambda lam: family(lam).flatten())(lams)

        _, pull = jax.vjp(weights, params)
        shares = jnp.einsum("mkp,mk->mp", system.rows, solution.reshape(m, k))
        (update,) = pull(shares)
        # r + J δφ = -μ times the solution.
        after = damping * solution
        promised = system.right @ system.right - after @ after
    step = jax.tree.map(jnp.add, params, update)
    return eqx.combine(step, static), promised


def _rows(
    row: Row, model: AbstractModel, lam: Array, items: PyTree
) -> tuple[Float[Array, "K P"], Float[Array, " K"]]:
    """The Jacobian A = ∂r/∂θ of the residuals at one λ, and the residuals."""
    net = model(lam)

    def f(theta: Array, item: PyTree) -> Array:
        return row(net.spec.unflatten(theta), lam, item)

    # One gradient a row: `jacrev` of all rows would cost a factor of their number.
    r, a = jax.vmap(jax.value_and_grad(f), (None, 0))(net.flatten(), items)
    return a, r


def compressed_rows(
    row: Row,
    rank: int,
    model: AbstractModel,
    lam: Array,
    items: PyTree,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "k P"], Float[Array, " k"]]:
    """The Jacobian A = ∂r/∂θ for one λ, and r, with at most `rank` rows.

    Left-multiplying A and r by an orthonormal Qᵀ changes neither JᵀJ nor Jᵀr within
    the span of Q. The span of A Ω with a random Ω holds A's largest singular
    directions (Halko, Martinsson and Tropp 2011, SIAM Review 53(2)), and the rest
    changes from step to step.
    """
    a, r = _rows(row, model, lam, items)
    if len(a) <= rank:
        return a, r
    if a.shape[1] > rank:
        q = jnp.linalg.qr(a @ jr.normal(key, (a.shape[1], rank), a.dtype))[0]
    else:
        q = jnp.linalg.qr(a)[0]
    return q.T @ a, q.T @ r


def hyper_kernel(
    model: HyperPINN, lams: Float[Array, "M p"], rows: Float[Array, "M k P"]
) -> Float[Array, "Mk Mk"]:
    """J Jᵀ of a HyperPINN from the rows of its main networks, without J."""
    scaled = jax.vmap(model.parameters.scale)(lams)
    trunk = (model.weights, model.biases)
    flat, unravel = ravel_pytree(trunk)

    def features(flat: Array, scaled: Array) -> Array:
        weights, biases = unravel(flat)
        for w, b in zip(weights, biases, strict=True):
            scaled = jnp.tanh(w @ scaled + b)
        return scaled

    z = jax.vmap(features, (None, 0))(flat, scaled)
    t = jax.vmap(jax.jacrev(features), (None, 0))(flat, scaled)
    m, k, p = rows.shape
    through_head = (rows.reshape(m * k, p) @ rows.reshape(m * k, p).T).reshape(
        m, k, m, k
    ) * (1 + z @ z.T)[:, None, :, None]
    w = rows @ model.head
    trunk_blocks = jnp.einsum("mzq,nyq->mzny", t, t)
    through_trunk = jnp.einsum("mkz,mzny,njy->mknj", w, trunk_blocks, w, optimize=True)
    return (through_head + through_trunk).reshape(m * k, m * k)


def dense_jacobian(
    model: AbstractModel,
    lams: Float[Array, "M p"],
    rows: Float[Array, "M k P"],
    trained: PyTree = eqx.is_inexact_array,
) -> Float[Array, "Mk n"]:
    """J for any model, by pulling each row back through θ(λ)."""
    params, static = eqx.partition(model, trained)

    def one(pair: tuple) -> Array:
        lam, rows = pair
        _, pull = jax.vjp(lambda p: eqx.combine(p, static)(lam).flatten(), params)
        return jax.vmap(lambda row: ravel_pytree(pull(row))[0])(rows)

    return jnp.concatenate(jax.lax.map(one, (lams, rows)))
