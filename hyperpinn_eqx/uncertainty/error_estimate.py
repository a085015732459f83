"""How far to trust a network at a λ: an estimate of its error without the solution."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Float64, PRNGKeyArray

from .. import _programs as programs
from .._arguments import ArrayLike, Count, TwoOrMore, checked
from ..box import unpack
from ..loss import Term
from ..networks.jets import jets
from ..networks.main import MainNet, in_float64
from ..networks.model import AbstractModel, cast
from ..physics.metrics import FamilyError, errors, physical
from ..physics.pinn import PINNLoss
from ..physics.sampling import condition_points, latin_hypercube, uniform
from ..problems.base import AbstractPDE
from ..training.linear_system import term_rows

# Of the sum of squares of all entries of the Jacobian: a hundred times round-off.
_DAMPING = 1e-12


# The step is too ill-conditioned for float32.
@in_float64
@checked
def estimate_error(
    model: AbstractModel,
    problem: AbstractPDE,
    *,
    n_lam: TwoOrMore = 64,
    n_points: Count = 2000,
    lams: Float64[ArrayLike, " M *p"] | None = None,
    key: PRNGKeyArray,
) -> FamilyError:
    """The error over values of λ, estimated from the residual, in float64.

    To first order the error e of a network u solves the linearised equation with the
    residual as its source, and misses the conditions by what u misses. It is looked for
    among the changes of u that the weights of the main network can make: one
    Gauss-Newton step of that network alone, at fresh points. The estimate is how far
    the step moves u, also for λ outside the trained range, where it warns. (On
    residuals and errors, De Ryck and Mishra 2024, Acta Numerica 33.)

    It sees what more training at this λ could mend. It is too small where the main
    network cannot hold the solution at all, and a guess where the error is so large
    that it is not linear. In other units of the equation it is the same.

    Args:
        model: a HyperPINN or a baseline.
        problem: the family of equations; `exact` is not asked for.
        n_lam: values of λ, as by `latin_hypercube` over the range of the problem.
        n_points: fresh points in the domain; a fifth as many for each condition, and
            where a network that is odd by construction has to vanish.
        lams: values of λ to take instead, shape (M,), or (M, p) for p > 1 parameters.
        key: a JAX random key.

    Returns:
        A `FamilyError` of estimates: what `family_error` would measure, if the solution
        was known. NaN where the model is not finite.

    Raises:
        ValueError: a λ outside of what the problem allows, or a problem with other
            parameters than the model.

    >>> import hyperpinn_eqx as hpx
    >>> model = hpx.load_pretrained("burgers-hyperpinn")
    >>> lams = np.array([0.01, 0.0005])
    >>> estimate = estimate_error(model, hpx.Burgers(), lams=lams, key=jr.key(0))
    >>> print(estimate.relative_l2 < 1e-2)
    [ True False]
    """
    box = problem.parameters
    if model.parameters.names != box.names:
        raise ValueError(f"problem has {box}, expected {model.parameters} as the model")
    lam_key, point_key, edge_key = jr.split(key, 3)
    n_edge = -(-n_points // 5)
    if lams is None:
        lams = unpack(box, latin_hypercube(box, n_lam, key=lam_key))
    values = physical("lams", lams, problem, "M")
    loss = PINNLoss(problem)
    places = problem.conditions.items()
    keys = list(jr.split(edge_key, len(places)))

    def draw(lam: Float[Array, " p"]) -> dict[str, Any]:
        domain, value = problem.domain, unpack(box, lam)
        points = uniform(domain, n_points, value, key=jr.clone(point_key))
        items: dict[str, Any] = {"physics": points}
        for (name, where), one in zip(places, keys, strict=True):
            if name in loss.terms:
                own = jr.clone(one)
                items[name] = condition_points(domain, where, n_edge, value, key=own)
        return items

    columns = jnp.asarray(values.reshape(-1, len(box)))
    steps = functools.partial(_steps, loss, draw)
    squares, sizes = programs.call(steps, cast(model, jnp.float64), columns)
    return errors(values, problem.fields, np.asarray(squares), np.asarray(sizes))


def _steps(
    loss: PINNLoss,
    draw: Callable[[Float[Array, " p"]], dict[str, Any]],
    model: AbstractModel,
    lams: Float[Array, "M p"],
) -> tuple[Float[Array, "M k"], Float[Array, "M k"]]:
    """For each λ the mean square of the change of each field, and of it after that."""
    names, k = loss.problem.domain.names, len(loss.problem.fields)

    def values(
        net: MainNet, _: Array, at: Float[Array, "n d"]
    ) -> Float[Array, " n *k"]:
        return jets(net, at, (), names).value

    def one(lam: Array) -> tuple[Array, Array]:
        net = model(lam)
        spec, theta = net.spec, net.flatten()
        terms, parts = dict(loss.terms), draw(lam)
        points = parts["physics"]
        if (axis := spec.odd_axis) is not None:
            # It vanishes in the middle. Off it, no point sees that it jumps there.
            terms["middle"] = Term(values)
            parts["middle"] = points[::5].at[:, axis].set(0.0)
        each = {n: term_rows(term, net, lam, parts[n]) for n, term in terms.items()}
        # Equations and conditions all have units of their own: half of the weight goes
        # to the equations, and half to the conditions, to each of them the same.
        counts = {True: 0, False: 0}
        for name, (_, r) in each.items():
            counts[name == "physics"] += r.shape[1]
        rows, right = [], []
        for name, (a, r) in each.items():
            sizes = jnp.sum(a**2, axis=(0, 2)) * counts[name == "physics"]
            scale = jnp.sqrt(jnp.where(sizes > 0, sizes, 1.0))
            rows.append((a / scale[None, :, None]).reshape(-1, theta.size))
            right.append((r / scale[None]).ravel())
        step = -_least_squares(jnp.concatenate(rows), jnp.concatenate(right))
        u, change = jax.jvp(
            lambda theta: values(net.replaced(theta), lam, points), (theta,), (step,)
        )
        u, change = u.reshape(-1, k), change.reshape(-1, k)
        return jnp.mean(change**2, axis=0), jnp.mean((u + change) ** 2, axis=0)

    return jax.lax.map(one, lams)


def _least_squares(a: Float[Array, "K P"], r: Float[Array, " K"]) -> Float[Array, " P"]:
    """The least x with a x = r, damped; the smaller of two equal systems."""
    tall = a.shape[0] > a.shape[1]
    gram = a.T @ a if tall else a @ a.T
    damped = gram + _DAMPING * jnp.trace(gram) * jnp.eye(len(gram))
    factor = jax.scipy.linalg.cho_factor(damped)
    if tall:
        return jax.scipy.linalg.cho_solve(factor, a.T @ r)
    return a.T @ jax.scipy.linalg.cho_solve(factor, r)
