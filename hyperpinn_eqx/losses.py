"""The losses: a PINN's (paper eq. 6) and a multistep network's (paper eq. 9)."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .checks import array, choice, function, instance, number, positive
from .devices import each_lam
from .jets import Jet, jets
from .mainnet import MainNet, precision
from .model import AbstractModel
from .multistep import Multistep, residual
from .problems.base import AbstractPDE, unpack
from .sampling import Batch

Weight = Callable[[Jet], Array]


class Loss(eqx.Module):
    """A loss as named parts; training minimises their sum, `total`.

    Raises:
        ValueError: no parts, or one that is not a single real number.
        TypeError: `terms` is no dictionary, or a name no string.

    >>> print(Loss({"data": jnp.array(1.0), "physics": jnp.array(2.0)}).total)
    3.0
    """

    terms: dict[str, Float[Array, ""]]

    def __init__(self, terms: dict[str, Float[ArrayLike, ""]]):
        instance("terms", terms, dict)
        if not terms:
            raise ValueError("terms = {}, expected one part or more")
        for name in terms:
            instance("a name in terms", name, str)
        self.terms = {k: array(f"terms[{k!r}]", v) for k, v in terms.items()}

    @property
    def total(self) -> Float[Array, ""]:
        """The sum of all terms."""
        return jnp.sum(jnp.stack(list(self.terms.values())))


def residuals(
    net: Callable[[Array], Array],
    problem: AbstractPDE,
    lam: Float[ArrayLike, " p"],
    points: Float[ArrayLike, "n d"],
    *,
    weight: Weight | None = None,
    reverse: bool = False,
) -> Float[Array, " n"]:
    """The residual N[u; λ] of a network at n points, in the network's precision.

    Whatever precision the constants of a problem have, the residual is rounded to that.

    Args:
        net: a main network, or any function of one point.
        problem: the family of equations.
        lam: one λ, shape (p,), physical units.
        points: collocation points, shape (n, d).
        weight: multiplies each residual, see `slope_weight`.
        reverse: see `jets`.

    Raises:
        ValueError: an array of another shape, returned ones included, or not finite.
        TypeError: `net` or `weight` is no function, or `problem` no problem.
    """
    function("net", net)
    instance("problem", problem, AbstractPDE)
    names = problem.domain.names
    with precision(net.dtype if isinstance(net, MainNet) else jnp.result_type(float)):
        lam = array("lam", lam, len(problem.parameters), finite=True)
        points = array("points", points, "n", len(names), finite=True)
        u = jets(net, points, problem.derivatives, names, reverse=reverse)
        dtype = u.value.dtype
        value = unpack(problem.parameters, lam.astype(dtype))
        r = jax.vmap(problem.residual, (0, 0, None))(u, points.astype(dtype), value)
        r = array("problem.residual of all points", r, len(points)).astype(dtype)
        if weight is None:
            return r
        function("weight", weight)
        return array("weight of all points", weight(u), len(points)).astype(dtype) * r


def targets(
    problem: AbstractPDE,
    lam: Float[ArrayLike, " p"],
    initial: Float[ArrayLike, "I d"],
    boundary: Float[ArrayLike, "B d"],
) -> Float[Array, " I+B"]:
    """The prescribed values at the initial points and then at the boundary points.

    Raises:
        ValueError: an array of another shape, returned ones included, or not finite.
        TypeError: `problem` is no problem.
    """
    instance("problem", problem, AbstractPDE)
    d = len(problem.domain)
    lam = array("lam", lam, len(problem.parameters), finite=True)
    value = unpack(problem.parameters, lam)

    def part(name: str, points: ArrayLike, f: Callable) -> Array:
        points = array(name, points, "n", d, finite=True, empty=True)
        if not len(points):
            return points[:, 0]
        found = jax.vmap(f, (0, None))(points, value.astype(points.dtype))
        found = array(f"problem.{name} of all points", found, len(points))
        # An integer, as of `return 0`, has no precision of its own.
        return found.astype(points.dtype)

    return jnp.concatenate(
        [
            part("initial", initial, problem.initial),
            part("boundary", boundary, problem.boundary),
        ]
    )


def pinn_loss(
    model: AbstractModel,
    problem: AbstractPDE,
    batch: Batch,
    *,
    alpha: float | Float[Array, ""] = 1.0,
    weight: Weight | None = None,
) -> Loss:
    """The loss of paper eq. 6 over a batch of λ, with means in place of sums.

    The hypernetwork runs once for each λ; derivatives are taken of the generated
    main network alone, in the precision of its weights. To be differentiated in reverse
    mode (`jax.grad`), and then in any (`jax.hessian`); the code that makes this fast
    knows no forward mode at first.

    Args:
        model: a HyperPINN or a baseline.
        problem: the family of equations.
        batch: λ, collocation points, and points of the initial and boundary data.
        alpha: the weight α of the physics term.
        weight: multiplies each residual before it is squared.

    Returns:
        A `Loss` with terms `data` and `physics` (which includes α); without `data`
        where a batch has no conditions, as those of a problem that needs none.

    Raises:
        ValueError: a batch that does not fit the problem; α below 0; a network or a
            problem that returns another shape.
        TypeError: an argument of another kind.
    """
    function("model", model)
    instance("problem", problem, AbstractPDE)
    instance("batch", batch, Batch)
    # Of one that JAX traces, as a schedule's, nothing is known yet.
    if not isinstance(alpha, jax.core.Tracer):
        alpha = number("alpha", alpha, 0.0)
    # A batch has seen to all else.
    d = len(problem.domain)
    array("batch.lam", batch.lam, "M", len(problem.parameters))
    array("batch.points", batch.points, "M", "N", d)
    conditions = jnp.concatenate([batch.initial, batch.boundary])
    array("batch.initial with batch.boundary", conditions, "I+B", d, empty=True)

    def one(lam: Array, points: Array) -> dict[str, Array]:
        net = model(lam)
        r = residuals(net, problem, lam, points, weight=weight, reverse=True)
        physics = alpha * jnp.mean(r**2)
        if not len(conditions):
            return {"physics": physics}
        u = jets(net, conditions, (), problem.domain.names, reverse=True).value
        u = array("model(lam) at the conditions", u, len(conditions))
        known = (a.astype(u.dtype) for a in (lam, batch.initial, batch.boundary))
        gap = u - targets(problem, *known)
        return {"data": jnp.mean(gap**2), "physics": physics}

    size = batch.points.shape[1] + len(conditions)
    terms = each_lam(one, batch.lam, batch.points, size)
    return Loss({name: jnp.mean(value) for name, value in terms.items()})


def multistep_loss(
    model: AbstractModel,
    lam: Float[ArrayLike, "M p"],
    windows: Float[ArrayLike, "M n length d"],
    *,
    scheme: Multistep,
    dt: float,
    scale: Float[ArrayLike, " d"],
) -> Loss:
    """The multistep loss of paper eq. 9, with means in place of sums.

    It is computed in the precision of the model's weights.

    Args:
        model: a HyperPINN or a baseline.
        lam: M values of λ, shape (M, p).
        windows: n runs of consecutive states for each, shape (M, n, k + 1, d).
        scheme: the multistep method, with k steps.
        dt: the time between states.
        scale: divides each component of the residual, shape (d,).

    Returns:
        A `Loss` with the term `multistep`.

    Raises:
        ValueError: an array of another shape or not finite, or Δt not positive.
        TypeError: an argument of another kind.
    """
    function("model", model)
    instance("scheme", scheme, Multistep)
    dt = positive("dt", dt)
    lam = array("lam", lam, "M", "p", finite=True)
    windows = array("windows", windows, "M", "n", "k + 1", "d", finite=True)
    if len(lam) != len(windows):
        raise ValueError(f"lam has {len(lam)} rows, expected {len(windows)} as windows")
    array("windows", windows, len(lam), "n", scheme.steps + 1, "d")
    scale = array("scale", scale, windows.shape[3], finite=True)

    def one(lam: Array, windows: Array) -> Array:
        net = model(lam)
        r = jax.vmap(lambda states: residual(scheme, net, states, dt))(windows)
        return jnp.mean((r / scale.astype(r.dtype)[None]) ** 2)

    size = windows.shape[1] * windows.shape[2]
    return Loss({"multistep": jnp.mean(each_lam(one, lam, windows, size))})


def slope_weight(*names: str) -> Weight:
    """The weight `1 / (1 + |∂u|)` of a residual, e.g. `slope_weight("x")`.

    Inside a shock the residual is large but says little about where the shock is;
    this turns the optimiser's attention to the smooth flow that decides it. The
    weight itself is not differentiated. (Ferrer-Sánchez et al. 2024, CMAME 424.)

    Raises:
        TypeError: a name is no string.
        ValueError: when the weight is called, a name of no derivative in the jet.
    """
    for name in names:
        instance("names", name, str)

    def weight(u: Jet) -> Array:
        for name in names:
            choice("names", name, u.derivatives)
        slopes = (jnp.abs(getattr(u, name)) for name in names)
        slope = sum(slopes, start=jnp.zeros_like(u.value))
        return jax.lax.stop_gradient(1 / (1 + slope))

    return weight
