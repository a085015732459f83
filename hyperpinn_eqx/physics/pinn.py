"""The loss of paper eq. 6."""

import itertools
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _programs as programs
from .._arguments import (
    ArrayLike,
    Count,
    Finite,
    MayBeEmpty,
    NonNegative,
    TwoOrMore,
    array,
    checked,
    choice,
)
from .._blocks import map_lam
from ..box import Box
from ..loss import AbstractLeastSquares, Batch, Term
from ..networks.jets import Jet, jets
from ..networks.main import MainNet, precision
from ..networks.model import AbstractModel, cast, dtype_of
from ..problems.base import AbstractPDE, unpack
from .sampling import latin_hypercube, residual_adaptive, uniform

Weight = Callable[[Jet], Array]
# From the range of λ, a number n and a key to n values of λ.
SampleLam = Callable[..., Float[Array, "n p"]]


class Prescribed(eqx.Module):
    """Points where u is prescribed, and its values there."""

    point: Float[Array, "*n d"]
    value: Float[Array, "*n"]


@checked
def corners_and_hypercube(
    box: Box, n: TwoOrMore, *, key: PRNGKeyArray
) -> Float[Array, "n p"]:
    """N values of λ: the corners of their range, and a Latin hypercube of the rest.

    All corners where they are at most half of the values, else two opposite ones.

    >>> box = Box(nu=(1e-3, 1e-1, "log"))
    >>> print(corners_and_hypercube(box, 8, key=jr.key(0))[:2, 0])
    [0.001 0.1  ]
    """
    # Nothing between them speaks for the ends, and they are the hardest.
    ends = list(zip(box.low, box.high, strict=True))
    corners = list(dict.fromkeys(itertools.product(*ends)))
    if 2 * len(corners) > max(n, 4):
        corners = [corners[0], corners[-1]]
    inside = latin_hypercube(box, n - len(corners), key=key)
    return jnp.concatenate([jnp.array(corners), inside])


class PINNLoss(AbstractLeastSquares):
    """The loss of paper eq. 6 over a family of equations, with means in place of sums.

    The terms are `physics`, which includes α, and `data`; the latter only where the
    problem has initial or boundary points. A batch costs one evaluation of the
    hypernetwork for each λ; derivatives are taken of the generated main networks alone,
    in the precision of their weights.

    Args:
        problem: the family of equations.
        initial: points of the initial time, shape (I, d), as `conditions` draws
            them; I may be 0.
        boundary: points of the boundary in space, shape (B, d).
        n_lam: values of λ in a batch.
        n_points: collocation points for each.
        alpha: the weight α of the physics term.
        weight: multiplies each residual before it is squared, see `slope_weight`.
        sample_lam: how λ is drawn: `uniform`, `log_uniform`, or any function of a box,
            a number n and a key.
        adaptive: whether collocation points gather where the residual is large, see
            `residual_adaptive`; uniform if not.
    """

    problem: AbstractPDE
    initial: Float[Array, "I d"]
    boundary: Float[Array, "B d"]
    n_lam: int = eqx.field(static=True)
    n_points: int = eqx.field(static=True)
    alpha: float | Float[Array, ""]
    weight: Weight | None = eqx.field(static=True)
    sample_lam: SampleLam = eqx.field(static=True)
    adaptive: bool = eqx.field(static=True)

    @checked
    def __init__(
        self,
        problem: AbstractPDE,
        initial: Finite[MayBeEmpty[Float[ArrayLike, "I d"]]],
        boundary: Finite[MayBeEmpty[Float[ArrayLike, "B d"]]],
        *,
        n_lam: Count = 32,
        n_points: Count = 200,
        alpha: NonNegative | Float[Array, ""] = 1.0,
        weight: Weight | None = None,
        sample_lam: SampleLam = corners_and_hypercube,
        adaptive: bool = True,
    ):
        d = len(problem.domain)
        self.initial = array("initial", initial, "I", d, empty=True)
        self.boundary = array("boundary", boundary, "B", d, empty=True)
        self.problem, self.alpha, self.weight = problem, alpha, weight
        self.n_lam, self.n_points = n_lam, n_points
        self.sample_lam, self.adaptive = sample_lam, adaptive

    @property
    def terms(self) -> Mapping[str, Term]:
        """The equation at collocation points, and u where it is prescribed."""
        return {
            "physics": Term(self._residuals, self.alpha),
            "data": Term(self._misfit),
        }

    def _residuals(
        self,
        net: Callable[[Array], Array],
        lam: Float[Array, " p"],
        points: Float[Array, "n d"],
    ) -> Float[Array, " n"]:
        return residuals(net, self.problem, lam, points, weight=self.weight)

    def _misfit(
        self, net: Callable[[Array], Array], lam: Float[Array, " p"], at: Prescribed
    ) -> Float[Array, " n"]:
        u = jets(net, at.point, (), self.problem.domain.names).value
        u = array("model(lam) at the conditions", u, len(at.point))
        return u - at.value.astype(u.dtype)

    @checked
    def sample(
        self,
        model: Callable[[Array], MainNet],
        *,
        key: PRNGKeyArray,
        lam: Finite[Float[ArrayLike, "M p"]] | None = None,
    ) -> Batch:
        """New values of λ, or those given, and new collocation points for each."""
        if lam is not None:
            lam = array("lam", lam, "M", len(self.problem.parameters))
        return programs.call(self._sample, model, key, lam)

    def _sample(
        self, model: AbstractModel, key: PRNGKeyArray, lam: Array | None
    ) -> Batch:
        box, domain = self.problem.parameters, self.problem.domain
        if lam is None:
            lam_key, key = jr.split(key)
            lam = self.sample_lam(box, self.n_lam, key=lam_key)
            lam = array("sample_lam(box, n)", lam, "M", len(box))

        def gathered(pair: tuple[Array, PRNGKeyArray]) -> Array:
            lam, key = pair
            net = model(lam)
            return residual_adaptive(
                lambda points: self._residuals(net, lam, points),
                domain,
                self.n_points,
                key=key,
            )

        if self.adaptive:
            points = map_lam(gathered, (lam, jr.split(key, len(lam))))
        else:
            points = uniform(domain, (len(lam), self.n_points), key=key)
        # What is prescribed is computed in the precision of what it is compared with.
        dtype = dtype_of(model)
        return cast(self, dtype).at(*cast((lam, points), dtype))

    @checked
    def at(
        self,
        lam: Finite[Float[ArrayLike, "M p"]],
        points: Finite[Float[ArrayLike, "M N d"]],
    ) -> Batch:
        """The batch of these λ with these collocation points for each."""
        lam = array("lam", lam, "M", len(self.problem.parameters))
        points = array("points", points, "M", "N", len(self.problem.domain))
        edges = jnp.concatenate([self.initial, self.boundary])
        if not len(edges):
            return Batch(lam, {"physics": points})

        def one(lam: Array) -> Prescribed:
            values = targets(self.problem, lam, self.initial, self.boundary)
            return Prescribed(edges, values)

        return Batch(lam, {"physics": points, "data": jax.vmap(one)(lam)})


@checked
def residuals(
    net: Callable[[Array], Array],
    problem: AbstractPDE,
    lam: ArrayLike,
    points: ArrayLike,
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
        ValueError: what the problem or the weight returns has another shape.
    """
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
        return array("weight of all points", weight(u), len(points)).astype(dtype) * r


@checked
def targets(
    problem: AbstractPDE,
    lam: Finite[Float[ArrayLike, " p"]],
    initial: Finite[MayBeEmpty[Float[ArrayLike, "I d"]]],
    boundary: Finite[MayBeEmpty[Float[ArrayLike, "B d"]]],
) -> Float[Array, " I+B"]:
    """The prescribed values at the initial points and then at the boundary points.

    Raises:
        ValueError: what the problem returns has another shape.
    """
    d = len(problem.domain)
    lam = array("lam", lam, len(problem.parameters))
    value = unpack(problem.parameters, lam)

    def part(name: str, points: ArrayLike, f: Callable) -> Array:
        points = array(name, points, "n", d, empty=True)
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


@checked
def slope_weight(*names: str) -> Weight:
    """The weight `1 / (1 + |∂u|)` of a residual, e.g. `slope_weight("x")`.

    Inside a shock the residual is large but says little about where the shock is;
    this turns the optimiser's attention to the smooth flow that decides it. The
    weight itself is not differentiated. (Ferrer-Sánchez et al. 2024, CMAME 424.)

    Raises:
        ValueError: when the weight is called, a name of no derivative in the jet.
    """

    def weight(u: Jet) -> Array:
        for name in names:
            choice("names", name, u.derivatives)
        slopes = (jnp.abs(getattr(u, name)) for name in names)
        slope = sum(slopes, start=jnp.zeros_like(u.value))
        return jax.lax.stop_gradient(1 / (1 + slope))

    return weight
