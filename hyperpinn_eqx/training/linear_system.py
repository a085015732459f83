"""A Gauss-Newton step through a hypernetwork: many rows a λ, one small dense system.

The residuals at λ_m depend on the hypernetwork's parameters φ only through the main
network's weights θ_m = θ(λ_m), so that their Jacobian is a product,

    J_m = A_m B_m,    A_m = ∂r_m/∂θ_m,    B_m = ∂θ_m/∂φ.

A_m is the Jacobian of a small network, and its rows are cut to the few directions
that the residuals see. B_m never exists: with θ = θ₀ + W z(λ),

    B_m B_nᵀ = (1 + z_m·z_n) I + W T_m T_nᵀ Wᵀ,    T_m = ∂z_m/∂(trunk),

which gives the kernel J Jᵀ block by block. The damped step is
δφ = -Jᵀ (J Jᵀ + μ I)⁻¹ r. A model with fewer parameters than kept rows is served by
the other form of the same step, δφ = -(JᵀJ + μ I)⁻¹ Jᵀ r.

The rows that were cut are not lost: a few conjugate gradients with all rows refine the
step, and the system of the kept rows is their preconditioner.

Where r bends along a step, the step bends with it (geodesic acceleration, Transtrum and
Sethna 2012, arXiv:1201.5885): to δφ comes half of -Jᵀ (J Jᵀ + μ I)⁻¹ r'', with r'' the
second derivative of r along δφ. That costs one more solution with the same factor, and
lets the damping fall by orders of magnitude.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.sparse.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._blocks import map_lam, shard, sum_lam
from ..loss import AbstractLeastSquares, Batch, Term
from ..networks.hyper import HyperPINN
from ..networks.main import MainNet
from ..networks.model import AbstractModel, count_parameters
from .validation import check_type


class Rows(eqx.Module):
    """All K rows of each λ."""

    a: Float[Array, "*M K P"]
    r: Float[Array, "*M K"]


class Cut(eqx.Module):
    """The basis Q of the rows that are kept, and all of them if they are needed."""

    basis: Float[Array, "*M K k"]
    every: Rows | None


class System(eqx.Module):
    """The linear system of one step, but for the damping.

    Dual: `matrix` is J Jᵀ, and `rows` takes its solution back to the weights θ. Where
    these are not all rows of a λ, `cut` has the others.
    Primal: `matrix` is JᵀJ, and `rows` is None.
    """

    matrix: Float[Array, "n n"]
    right: Float[Array, " n"]
    rows: Float[Array, "M k P"] | None
    cut: Cut | None = None

    @property
    def size(self) -> Float[Array, ""]:
        """|J|², the sum of all squares: not finite if an entry of J is not."""
        return jnp.sum(jnp.diagonal(self.matrix))


def linearise(
    loss: AbstractLeastSquares,
    rank: int,
    trained: PyTree,
    model: AbstractModel,
    batch: Batch,
    key: PRNGKeyArray,
) -> System:
    """The system of a batch; `trained` tells which leaves of the model are unknowns."""
    lams, share = batch.lam, 1 / math.sqrt(len(batch.lam))
    if count_parameters(eqx.filter(model, trained)) <= rank * len(lams):
        return _normal_equations(loss, trained, model, batch)
    # The same directions for every λ: they only have to be random to its Jacobian.
    theta = model(lams[0]).flatten()
    sketch = jr.normal(key, (theta.size, rank), theta.dtype)

    def one(pair: tuple) -> tuple[Array, Array, Cut | None]:
        a, r, cut = compressed_rows(loss, sketch, model, *pair)
        if cut is not None and cut.every is not None:
            every = Rows(cut.every.a * share, cut.every.r * share)
            cut = Cut(cut.basis, every if every.a.size * len(lams) <= _MOST else None)
        return a * share, r * share, cut

    a, r, cut = map_lam(one, (lams, batch.items))
    r = r.ravel()
    if isinstance(model, HyperPINN) and all(jax.tree.leaves(trained)):
        return System(hyper_kernel(model, lams, a), r, a, cut)
    dense = dense_jacobian(model, lams, a, trained)
    return System(dense @ dense.T, r, a, cut)


def _normal_equations(
    loss: AbstractLeastSquares, trained: PyTree, model: AbstractModel, batch: Batch
) -> System:
    """JᵀJ = Σ Bᵀ (AᵀA) B, where A never leaves its λ."""
    lams = batch.lam
    eye = jnp.eye(model(lams[0]).flatten().size)

    def one(pair: tuple) -> tuple[Array, Array]:
        lam, items = pair
        a, r = residual_rows(loss, model, lam, items)
        b = dense_jacobian(model, lam[None], eye[None], trained)
        return b.T @ (a.T @ a) @ b, b.T @ (a.T @ r)

    matrix, right = sum_lam(one, (lams, batch.items))
    return System(matrix / len(lams), right / len(lams), None)


# A step bends at most so far: twice the length of its acceleration for that of its
# velocity, see Transtrum and Sethna.
_BEND = 0.75
# So often a step is refined by all rows, or until so much is left; and only if these
# are not too many numbers: 2 GiB.
_REFINED, _RELATIVE = 12, 1e-4
_MOST = 2**28
# Along a step, r'' is told by central differences over this part of it.
_NEAR = 0.05


def solve(
    loss: AbstractLeastSquares,
    trained: PyTree,
    model: AbstractModel,
    batch: Batch,
    system: System,
    damping: Array,
) -> tuple[AbstractModel, Float[Array, ""]]:
    """The model after one step, δφ = -Jᵀ (J Jᵀ + μ I)⁻¹ r = -(JᵀJ + μ I)⁻¹ Jᵀ r, bent.

    And the fall |r|² - |r + J δφ|² of the loss that the linear model promises.
    """
    params, static = eqx.partition(model, trained)
    flat, unravel = ravel_pytree(params)
    damped = system.matrix + damping * jnp.eye(len(system.matrix))
    factor = jax.scipy.linalg.cho_factor(damped)

    def weights(flat: Array) -> Float[Array, "M P"]:
        family = eqx.combine(unravel(flat), static)
        return jax.vmap(lambda lam: family(lam).flatten())(batch.lam)

    _, pull = jax.vjp(weights, flat)
    m, primal = len(batch.lam), system.rows is None

    def onto(rows: Float[Array, "M k P"], step: Array) -> Float[Array, "M k"]:
        """J times a step."""
        return jnp.einsum("mkp,mp->mk", rows, jax.jvp(weights, (flat,), (step,))[1])

    def back(rows: Float[Array, "M k P"], along: Array) -> Array:
        """Jᵀ times a vector of rows."""
        shares = jnp.einsum("mkp,mk->mp", rows, along.reshape(rows.shape[:2]))
        return pull(shares)[0]

    def answer(right: Array) -> Array:
        """The step that answers r, or another vector in its place."""
        solution = jax.scipy.linalg.cho_solve(factor, -right)
        return solution if system.rows is None else back(system.rows, solution)

    step = answer(system.right)
    if system.rows is None:
        # J δφ is not at hand, but (JᵀJ + μ I) δφ = -Jᵀ r.
        promised = damping * (step @ step) - system.right @ step
    else:
        kept, rows, r = system.rows, system.rows, system.right
        every = None if system.cut is None else system.cut.every
        if every is not None:
            rows, r = every.a, every.r

            def whole(step: Array) -> Array:
                return back(rows, onto(rows, step)) + damping * step

            def nearly(right: Array) -> Array:
                """(JᵀJ + μ I)⁻¹ with the kept rows in the place of all."""
                within = onto(kept, right).ravel()
                solution = jax.scipy.linalg.cho_solve(factor, within)
                return (right - back(kept, solution)) / damping

            step, _ = jax.scipy.sparse.linalg.cg(
                whole,
                -back(rows, r),
                x0=step,
                tol=_RELATIVE,
                maxiter=_REFINED,
                M=nearly,
            )
        after = r.ravel() + onto(rows, step).ravel()
        promised = jnp.sum(r**2) - after @ after

    near = jnp.array([-_NEAR, 0, _NEAR])[:, None] * step[None] + flat[None]
    way = jax.vmap(weights, out_axes=1)(near)
    basis = None if system.cut is None else system.cut.basis
    second = _curvature(loss, model, batch, way, basis, primal)
    bend = answer(pull(second)[0] / m if primal else second.ravel() / math.sqrt(m))
    little = 2 * jnp.linalg.norm(bend) <= _BEND * jnp.linalg.norm(step)
    step = step + jnp.where(little, bend / 2, 0)
    return eqx.combine(unravel(flat + step), static), promised


def _curvature(
    loss: AbstractLeastSquares,
    model: AbstractModel,
    batch: Batch,
    way: Float[Array, "M 3 P"],
    basis: Float[Array, "M K k"] | None,
    primal: bool,
) -> Float[Array, "M _"]:
    """The second derivative r'' of the rows along a step, for each λ.

    From the weights θ a little before, here, and a little after. As Qᵀ r'' for a
    `basis` Q; as Aᵀ r'' for the primal system.
    """

    def one(args: tuple) -> Array:
        lam, items, thetas, q = args
        net = model(lam)

        def rows(theta: Array) -> Float[Array, " K"]:
            return jnp.concatenate(rows_of(loss, net.replaced(theta), lam, items))

        before, here, after = jax.vmap(rows)(thetas)
        r = (before - 2 * here + after) / _NEAR**2
        if primal:
            return jax.vjp(rows, thetas[1])[1](r)[0]
        return r if q is None else q.T @ r

    return map_lam(one, (batch.lam, batch.items, way, basis))


def rows_of(
    loss: AbstractLeastSquares, net: MainNet, lam: Array, items: PyTree
) -> list[Float[Array, " K"]]:
    """What is squared at one λ, term by term."""
    found = []
    for name, term in loss.terms_of(items).items():
        part = shard(items[name], "points")
        r = term.residuals(net, lam, part)
        check_type(f"residuals of {name!r}", r.dtype, net)
        found.append(term.rows(r, len(r)))
    return found


def residual_rows(
    loss: AbstractLeastSquares, model: AbstractModel, lam: Array, items: PyTree
) -> tuple[Float[Array, "K P"], Float[Array, " K"]]:
    """The Jacobian A = ∂r/∂θ of the rows at one λ, and the rows r."""
    net = model(lam)
    parts = [
        term_rows(term, net, lam, items[name])
        for name, term in loss.terms_of(items).items()
    ]
    a = jnp.concatenate([a.reshape(-1, a.shape[-1]) for a, _ in parts])
    return a, jnp.concatenate([r.ravel() for _, r in parts])


def term_rows(
    term: Term, net: MainNet, lam: Array, items: PyTree
) -> tuple[Float[Array, "n k P"], Float[Array, "n k"]]:
    """The same for one term: n items of k rows each."""
    theta, n = net.flatten(), len(jax.tree.leaves(items)[0])

    def rows(theta: Array, item: PyTree) -> Float[Array, " k"]:
        alone = jax.tree.map(lambda x: x[None], item)
        return term.rows(term.residuals(net.replaced(theta), lam, alone), n)

    # Item by item: `jacrev` of all rows would cost a factor of their number.
    def with_jacobian(item: PyTree) -> tuple[Array, Array]:
        r, pull = jax.vjp(lambda theta: rows(theta, item), theta)
        return jax.vmap(pull)(jnp.eye(len(r), dtype=r.dtype))[0], r

    return jax.vmap(with_jacobian)(shard(items, "points"))


def compressed_rows(
    loss: AbstractLeastSquares,
    sketch: Float[Array, "P rank"],
    model: AbstractModel,
    lam: Array,
    items: PyTree,
) -> tuple[Float[Array, "k P"], Float[Array, " k"], Cut | None]:
    """The Jacobian A = ∂r/∂θ for one λ, and r, with at most `rank` rows, and the rest.

    Left-multiplying A and r by an orthonormal Qᵀ changes neither JᵀJ nor Jᵀr within
    the span of Q. The span of A Ω with a random Ω, `sketch`, holds A's largest singular
    directions (Halko, Martinsson and Tropp 2011, SIAM Review 53(2)), and the rest
    changes from step to step.
    """
    a, r = residual_rows(loss, model, lam, items)
    (_, size), rank = a.shape, sketch.shape[1]
    if len(a) <= rank:
        return a, r, None
    q = jnp.linalg.qr(a @ sketch if size > rank else a)[0]
    # With as many rows as weights, what is cut makes no difference to a step.
    return q.T @ a, q.T @ r, Cut(q, Rows(a, r) if size > rank else None)


def hyper_kernel(
    model: HyperPINN, lams: Float[Array, "M p"], rows: Float[Array, "M k P"]
) -> Float[Array, "Mk Mk"]:
    """J Jᵀ of a HyperPINN from the rows of its main networks, without J."""
    scaled = jax.vmap(model.parameters.scale)(lams)
    flat, unravel = ravel_pytree(model.trunk)

    jacobian = jax.jacrev(lambda flat, scaled: unravel(flat)(scaled))
    z = jax.vmap(model.trunk)(scaled)
    t = jax.vmap(jacobian, (None, 0))(flat, scaled)
    m, k, p = rows.shape
    through_head = (rows.reshape(m * k, p) @ rows.reshape(m * k, p).T).reshape(
        m, k, m, k
    ) * (1 + z @ z.T)[:, None, :, None]
    w = rows @ model.head
    # The smaller of two factors goes through the long sum over the trunk.
    if k < z.shape[1]:
        pulled = (w @ t).reshape(m * k, -1)
        through_trunk = (pulled @ pulled.T).reshape(m, k, m, k)
    else:
        blocks = jnp.einsum("mzq,nyq->mzny", t, t)
        through_trunk = jnp.einsum("mkz,mzny,njy->mknj", w, blocks, w, optimize=True)
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

    return jnp.concatenate(map_lam(one, (lams, rows)))
