"""The loss of paper eq. 6: as mean squares, and as rows for Gauss-Newton."""

import functools
import itertools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .. import _arguments as checks
from .. import _programs as programs
from .._arguments import array, choice, function, instance, number
from .._blocks import each_lam, map_lam
from ..loss import AbstractRows, Loss, Row
from ..networks.jets import Jet, jets
from ..networks.main import MainNet, precision
from ..networks.model import AbstractModel
from ..problems.base import AbstractPDE, unpack
from .sampling import Batch, residual_adaptive, spread

Weight = Callable[[Jet], Array]


def residuals(
    net: Callable[[Array], Array],
    problem: AbstractPDE,
    lam: Float[ArrayLike, " p"],
    points: Float[ArrayLike, "n d"],
    *,
    weight: Weight | None = None,
) -> Float[Array, " n"]:
    """The residual N[u; λ] of a network at n points, in the network's precision.

    Whatever precision the constants of a problem have, the residual is rounded to that.

    Args:
        net: a main network, or any function of one point.
        problem: the family of equations.
        lam: one λ, shape (p,), physical units.
        points: collocation points, shape (n, d).
        weight: multiplies each residual, see `slope_weight`.

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
        u = jets(net, points, problem.derivatives, names)
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
    main network alone, in the precision of its weights.

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
        r = residuals(net, problem, lam, points, weight=weight)
        physics = alpha * jnp.mean(r**2)
        if not len(conditions):
            return {"physics": physics}
        u = jets(net, conditions, (), problem.domain.names).value
        u = array("model(lam) at the conditions", u, len(conditions))
        known = (a.astype(u.dtype) for a in (lam, batch.initial, batch.boundary))
        gap = u - targets(problem, *known)
        return {"data": jnp.mean(gap**2), "physics": physics}

    size = batch.points.shape[1] + len(conditions)
    terms = each_lam(one, batch.lam, batch.points, size)
    return Loss({name: jnp.mean(value) for name, value in terms.items()})


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


class Place(eqx.Module):
    """A collocation point, and by how much its row counts."""

    point: Float[Array, "*n d"]
    scale: Float[Array, "*n"]


class Known(eqx.Module):
    """A point where u is prescribed, the value there, and how much its row counts."""

    point: Float[Array, "*n d"]
    target: Float[Array, "*n"]
    scale: Float[Array, "*n"]


class PINNRows(AbstractRows):
    """The loss of paper eq. 6 as a sum of squares over rows.

    For each λ there are `n_points` rows √(α/n) w N[u; λ] at residual-adaptive points,
    and a row for every initial and boundary point; none of the latter where a problem
    needs no conditions. Their squares add up to `pinn_loss` at those points.

    Attributes:
        problem: the family of equations.
        initial: points of the initial time, shape (I, d).
        boundary: points of the boundary in space, shape (B, d).
        n_points: collocation points for each λ.
        alpha: the weight α of the physics term.
        weight: multiplies each residual, see `slope_weight`.

    Raises:
        ValueError: points of another shape or not finite; a number out of its range.
        TypeError: `problem` is no problem, or `weight` no function.
    """

    problem: AbstractPDE
    initial: Float[Array, "I d"]
    boundary: Float[Array, "B d"]
    n_points: int = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    weight: Weight | None = eqx.field(static=True)

    def __init__(
        self,
        problem: AbstractPDE,
        initial: Float[ArrayLike, "I d"],
        boundary: Float[ArrayLike, "B d"],
        n_points: int,
        alpha: float = 1.0,
        weight: Weight | None = None,
    ):
        checks.instance("problem", problem, AbstractPDE)
        if weight is not None:
            checks.function("weight", weight)
        d = len(problem.domain)
        points = {
            name: checks.array(name, value, "n", d, finite=True, empty=True)
            for name, value in (("initial", initial), ("boundary", boundary))
        }
        self.problem, self.weight = problem, weight
        self.initial, self.boundary = points["initial"], points["boundary"]
        self.n_points = checks.count("n_points", n_points)
        self.alpha = checks.number("alpha", alpha, 0.0)

    @property
    def groups(self) -> tuple[Row, ...]:
        """The row of a collocation point, and that of a prescribed value."""
        return self.equation, self.condition

    def equation(
        self, net: MainNet, lam: Float[Array, " p"], item: Place
    ) -> Float[Array, ""]:
        """The row of a collocation point."""
        r = residuals(net, self.problem, lam, item.point[None], weight=self.weight)
        return item.scale * r[0]

    def condition(
        self, net: MainNet, lam: Float[Array, " p"], item: Known
    ) -> Float[Array, ""]:
        """The row of a prescribed value."""
        return item.scale * (net(item.point) - item.target)

    def draw(
        self, model: AbstractModel, lams: Float[ArrayLike, "M p"], key: PRNGKeyArray
    ) -> tuple[Place, Known]:
        """The rows of M values of λ, arrays of shape (M, K).

        Raises:
            ValueError: λ of another shape or not finite, or no key.
            TypeError: `model` is no function.
        """
        checks.function("model", model)
        p = len(self.problem.parameters)
        lams = checks.array("lams", lams, "M", p, finite=True)
        return programs.call(self._draw, model, lams, checks.random_key("key", key))

    def _draw(
        self, model: AbstractModel, lams: Array, key: PRNGKeyArray
    ) -> tuple[Place, Known]:
        def one(pair: tuple[Array, PRNGKeyArray]) -> tuple[Place, Known]:
            lam, key = pair
            net = model(lam)
            points = residual_adaptive(
                lambda p: residuals(net, self.problem, lam, p, weight=self.weight),
                self.problem.domain,
                self.n_points,
                key=key,
            )
            wanted = targets(self.problem, lam, self.initial, self.boundary)
            edges = jnp.concatenate([self.initial, self.boundary])
            share = math.sqrt(1 / max(len(edges), 1))
            return (
                Place(
                    points, jnp.full(len(points), math.sqrt(self.alpha / self.n_points))
                ),
                Known(edges, wanted, jnp.full(len(edges), share)),
            )

        return map_lam(one, (lams, jr.split(key, len(lams))))

    def batch(
        self, model: AbstractModel, key: PRNGKeyArray, n_lam: int
    ) -> tuple[Float[Array, "M p"], tuple[Place, Known]]:
        """n_lam values of λ, the corners of the range among them, and their rows.

        All corners where they are at most half of the values, else two opposite ones.

        Raises:
            ValueError: fewer than two values, or no key.
            TypeError: `model` is no function.
        """
        checks.function("model", model)
        n_lam = checks.count("n_lam", n_lam, 2)
        draw = functools.partial(self._batch, n_lam)
        return programs.call(draw, model, checks.random_key("key", key))

    def _batch(
        self, n_lam: int, model: AbstractModel, key: PRNGKeyArray
    ) -> tuple[Array, tuple[Place, Known]]:
        box = self.problem.parameters
        lam_key, key = jr.split(key)
        # Nothing between them speaks for the ends, and they are the hardest.
        ends = list(zip(box.low, box.high, strict=True))
        corners = list(dict.fromkeys(itertools.product(*ends)))
        if 2 * len(corners) > max(n_lam, 4):
            corners = [corners[0], corners[-1]]
        inside = spread(box, n_lam - len(corners), key=lam_key)
        lams = jnp.concatenate([jnp.array(corners), inside])
        return lams, self._draw(model, lams, key)
