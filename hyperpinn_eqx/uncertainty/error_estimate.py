"""How far to trust a network at a λ: an estimate of its error without the solution."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Float64, PRNGKeyArray

from .. import _programs as programs
from .._arguments import ArrayLike, Count, TwoOrMore, checked
from ..networks.jets import jets
from ..networks.main import in_float64
from ..networks.model import AbstractModel, cast
from ..physics.metrics import FamilyError, physical
from ..physics.pinn import PINNLoss, Prescribed, targets
from ..physics.sampling import conditions, latin_hypercube, uniform
from ..problems.base import AbstractPDE, unpack
from ..training.linear_system import residual_rows

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
    residual as its source, and differs from zero at the initial time and at the walls
    by what u misses there. It is looked for among the changes of u that the weights of
    the main network can make: one Gauss-Newton step of that network alone, at fresh
    points. The estimate is how far the step moves u, also for λ outside the trained
    range, where it warns. (On residuals and errors, De Ryck and Mishra 2024, Acta
    Numerica 33.)

    It sees what more training at this λ could mend. It is too small where the main
    network cannot hold the solution at all, and a guess where the error is so large
    that it is not linear. In other units of the equation it is the same.

    Args:
        model: a HyperPINN or a baseline.
        problem: the family of equations; `exact` is not asked for.
        n_lam: values of λ, as by `latin_hypercube` over the range of the problem.
        n_points: fresh points in the domain; a fifth as many at the initial time, at
            the walls, and where a network that is odd by construction has to vanish.
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
    points = uniform(problem.domain, (n_points,), key=point_key)
    edges = conditions(problem, n_edge, n_edge, key=edge_key)
    loss = PINNLoss(problem, *edges)
    columns = jnp.asarray(values.reshape(-1, len(box)))
    steps = functools.partial(_steps, loss, points)
    mse, size = programs.call(steps, cast(model, jnp.float64), columns)
    return FamilyError(values, np.asarray(mse), np.asarray(jnp.sqrt(mse / size)))


def _steps(
    loss: PINNLoss,
    points: Float[Array, "n d"],
    model: AbstractModel,
    lams: Float[Array, "M p"],
) -> tuple[Float[Array, " M"], Float[Array, " M"]]:
    """For each λ the mean square of the change of u, and of u after it."""
    problem, names = loss.problem, loss.problem.domain.names

    def one(lam: Array) -> tuple[Array, Array]:
        net = model(lam)
        spec, theta = net.spec, net.flatten()
        at = jnp.concatenate([loss.initial, loss.boundary])
        known = targets(problem, lam, loss.initial, loss.boundary)
        if (axis := spec.odd_axis) is not None:
            # Off it, no point sees that it jumps there.
            middle = points[::5].at[:, axis].set(0.0)
            at = jnp.concatenate([at, middle])
            known = jnp.append(known, jnp.zeros(len(middle)))
        items = {"physics": points, "data": Prescribed(at, known)}
        a, r = residual_rows(loss, model, lam, items)
        # Equation and conditions have different units: each gets half of the weight.
        squares = jnp.sum(a**2, axis=1)
        n = len(points)
        shares = jnp.where(
            jnp.arange(len(r)) < n, jnp.sum(squares[:n]), jnp.sum(squares[n:])
        )
        shares = jnp.where(shares > 0, shares, 1.0)
        step = -_least_squares(a / jnp.sqrt(shares)[:, None], r / jnp.sqrt(shares))

        def values(theta: Array) -> Array:
            return jets(spec.unflatten(theta), points, (), names).value

        u, change = jax.jvp(values, (theta,), (step,))
        return jnp.mean(change**2), jnp.mean((u + change) ** 2)

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
