"""The losses: a PINN's (paper eq. 6) and a multistep network's (paper eq. 9)."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .box import Box
from .jets import Jet, jets
from .model import AbstractModel
from .multistep import Multistep, residual
from .problems.base import AbstractPDE
from .sampling import Batch

Weight = Callable[[Jet], Array]


class Loss(eqx.Module):
    """A loss as named parts; training minimises their sum, `total`.

    >>> print(Loss({"data": jnp.array(1.0), "physics": jnp.array(2.0)}).total)
    3.0
    """

    terms: dict[str, Float[Array, ""]]

    @property
    def total(self) -> Float[Array, ""]:
        """The sum of all terms."""
        return jnp.sum(jnp.stack(list(self.terms.values())))


def residuals(
    net: Callable[[Array], Array],
    problem: AbstractPDE,
    lam: Float[Array, " p"],
    points: Float[Array, "n d"],
    *,
    weight: Weight | None = None,
    reverse: bool = False,
) -> Float[Array, " n"]:
    """The residual N[u; λ] of a network at n points.

    Args:
        net: a main network, or any function of one point.
        problem: the family of equations.
        lam: one λ, shape (p,), physical units.
        points: collocation points, shape (n, d).
        weight: multiplies each residual, see `slope_weight`.
        reverse: see `jets`.
    """
    names = problem.domain.names
    u = jets(net, points, problem.derivatives, names, reverse=reverse)
    value = unpack(problem.parameters, lam)
    r = jax.vmap(problem.residual, (0, 0, None))(u, points, value)
    return r if weight is None else weight(u) * r


def targets(
    problem: AbstractPDE,
    lam: Float[Array, " p"],
    initial: Float[Array, "I d"],
    boundary: Float[Array, "B d"],
) -> Float[Array, " I+B"]:
    """The prescribed values at the initial points and then at the boundary points."""
    value = unpack(problem.parameters, lam)
    return jnp.concatenate(
        [
            jax.vmap(problem.initial, (0, None))(initial, value),
            jax.vmap(problem.boundary, (0, None))(boundary, value),
        ]
    )


def pinn_loss(
    model: AbstractModel,
    problem: AbstractPDE,
    batch: Batch,
    *,
    alpha: float = 1.0,
    weight: Weight | None = None,
) -> Loss:
    """The loss of paper eq. 6 over a batch of λ, with means in place of sums.

    The hypernetwork runs once for each λ; derivatives are taken of the generated
    main network alone. To be differentiated in reverse mode (`jax.grad`), and then in
    any (`jax.hessian`); the code that makes this fast knows no forward mode at first.

    Args:
        model: a HyperPINN or a baseline.
        problem: the family of equations.
        batch: λ, collocation points, and points of the initial and boundary data.
        alpha: the weight α of the physics term.
        weight: multiplies each residual before it is squared.

    Returns:
        A `Loss` with terms `data` and `physics` (which includes α).
    """
    conditions = jnp.concatenate([batch.initial, batch.boundary])

    def one(lam: Array, points: Array) -> tuple[Array, Array]:
        net = model(lam)
        r = residuals(net, problem, lam, points, weight=weight, reverse=True)
        u = jets(net, conditions, (), problem.domain.names, reverse=True).value
        d = u - targets(problem, lam, batch.initial, batch.boundary)
        return jnp.mean(d**2), jnp.mean(r**2)

    data, physics = jax.vmap(one)(batch.lam, batch.points)
    return Loss({"data": jnp.mean(data), "physics": alpha * jnp.mean(physics)})


def multistep_loss(
    model: AbstractModel,
    lam: Float[Array, "M p"],
    windows: Float[Array, "M n length d"],
    *,
    scheme: Multistep,
    dt: float,
    scale: Float[Array, " d"],
) -> Loss:
    """The multistep loss of paper eq. 9, with means in place of sums.

    Args:
        model: a HyperPINN or a baseline.
        lam: M values of λ, shape (M, p).
        windows: n runs of consecutive states for each, shape (M, n, k + 1, d).
        scheme: the multistep method, with k steps.
        dt: the time between states.
        scale: divides each component of the residual, shape (d,).

    Returns:
        A `Loss` with the term `multistep`.
    """

    def one(lam: Array, windows: Array) -> Array:
        net = model(lam)
        r = jax.vmap(lambda states: residual(scheme, net, states, dt))(windows)
        return jnp.mean((r / scale[None]) ** 2)

    return Loss({"multistep": jnp.mean(jax.vmap(one)(lam, windows))})


def slope_weight(*names: str) -> Weight:
    """The weight `1 / (1 + |∂u|)` of a residual, e.g. `slope_weight("x")`.

    Inside a shock the residual is large but says little about where the shock is;
    this turns the optimiser's attention to the smooth flow that decides it. The
    weight itself is not differentiated. (Ferrer-Sánchez et al. 2024, CMAME 424.)
    """

    def weight(u: Jet) -> Array:
        slopes = (jnp.abs(getattr(u, name)) for name in names)
        slope = sum(slopes, start=jnp.zeros_like(u.value))
        return jax.lax.stop_gradient(1 / (1 + slope))

    return weight


def unpack(parameters: Box, lam: Float[Array, " p"]) -> Float[Array, "*p"]:
    """λ as a problem's methods receive it: a scalar if there is only one."""
    return lam[0] if len(parameters) == 1 else lam
