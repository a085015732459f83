"""The loss of paper eq. 6, for any conditions and any number of fields."""

import functools
import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

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
    NonNegative,
    TwoOrMore,
    array,
    checked,
    choice,
)
from .._blocks import map_lam
from ..box import Box, unpack
from ..loss import AbstractLeastSquares, Batch, Term
from ..networks.jets import Jet, by_field, canonical, jets, with_normal
from ..networks.main import MainNet, precision
from ..networks.model import AbstractModel, cast, dtype_of
from ..problems.base import AbstractPDE
from ..problems.conditions import Where
from ..problems.recorded import arranged, method, numbers, use_of
from .observations import Observations, Seen, gaps
from .sampling import (
    Places,
    condition_points,
    latin_hypercube,
    residual_adaptive,
    uniform,
)
from .wellposed import look_at

# A main network, or any function of one point.
Network = Callable[[Array], Array]
# From the jets of a network at n points to n factors.
Weight = Callable[..., Array]
# From the range of λ, a number n and a key to n values of λ.
SampleLam = Callable[..., Float[Array, "n p"]]


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

    The terms are `physics`, the equation at collocation points, one for each condition
    of the problem, called like its method, and `observations`, if there are any: their
    λ are part of every batch. A batch costs one evaluation of
    the hypernetwork for each λ; derivatives are taken of the generated main networks
    alone, in the precision of their weights.

    Args:
        problem: the family of equations.
        observations: what has been seen of solutions.
        n_lam: values of λ in a batch, those of observations not counted.
        n_points: collocation points for each.
        n_conditions: points of each condition for each λ, on all of its faces together.
        weights: of the terms by name, such as `{"physics": 0.1}` for the α of the
            paper; 1 for those that are not named. A term of weight 0 is left out.
        factor: multiplies each residual of the equation before it is squared, see
            `slope_weight`.
        sample_lam: how λ is drawn: `uniform`, `log_uniform`, or any function of a box,
            a number n and a key.
        adaptive: whether collocation points gather where the residual is large, see
            `residual_adaptive`; uniform if not.

    Raises:
        ValueError: a weight of no term, a method that returns something else than
            numbers, or a field that no equation contains.

    Warns:
        UserWarning: the conditions seem to leave the solution undetermined, or
            contradict each other, see `look_at`; of `sample`, a network is odd in a
            coordinate and no condition is at 0.
    """

    problem: AbstractPDE
    observations: Observations | None
    n_lam: int = eqx.field(static=True)
    n_points: int = eqx.field(static=True)
    n_conditions: int = eqx.field(static=True)
    weights: dict[str, float | Float[Array, ""]]
    factor: Weight | None = eqx.field(static=True)
    sample_lam: SampleLam = eqx.field(static=True)
    adaptive: bool = eqx.field(static=True)

    @checked
    def __init__(
        self,
        problem: AbstractPDE,
        observations: Observations | None = None,
        *,
        n_lam: Count = 32,
        n_points: Count = 200,
        n_conditions: Count = 100,
        weights: Mapping[str, NonNegative | Float[Array, ""]] | None = None,
        factor: Weight | None = None,
        sample_lam: SampleLam = corners_and_hypercube,
        adaptive: bool = True,
    ):
        look_at(problem)
        known = ["physics", *problem.conditions]
        if observations is not None:
            observations.columns(problem)
            known.append("observations")
        for name in weights or {}:
            choice("a name in weights", name, known)
        self.problem, self.observations = problem, observations
        self.n_lam, self.n_points = n_lam, n_points
        self.n_conditions, self.weights = n_conditions, dict(weights or {})
        self.factor, self.sample_lam, self.adaptive = factor, sample_lam, adaptive

    @property
    def terms(self) -> dict[str, Term]:
        """The equation, each condition that prescribes something, and observations."""
        problem, terms = self.problem, dict[str, Term]()
        for name in ("physics", *problem.conditions):
            weight = self.weights.get(name, 1.0)
            left_out = isinstance(weight, float) and weight == 0
            if left_out or not use_of(problem, name).size:
                continue
            own = self._equation if name == "physics" else self._condition
            terms[name] = Term(functools.partial(own, name), weight)
        if self.observations is not None:
            columns = self.observations.columns(problem)
            seen = functools.partial(self._seen, columns)
            terms["observations"] = Term(seen, self.weights.get("observations", 1.0))
        return terms

    def _equation(
        self, _: str, net: Network, lam: Float[Array, " p"], points: Float[Array, "n d"]
    ) -> Float[Array, " n *m"]:
        return residuals(net, self.problem, lam, points, factor=self.factor)

    def _condition(
        self, name: str, net: Network, lam: Float[Array, " p"], places: Places
    ) -> Float[Array, " n *m"]:
        return condition_residuals(net, self.problem, name, lam, places)

    def _seen(
        self, columns: list[int], net: Network, _: Float[Array, " p"], seen: Seen
    ) -> Float[Array, "n k"]:
        return gaps(self.problem, columns, net, seen)

    @checked
    def sample(
        self,
        model: Callable[[Array], MainNet],
        *,
        key: PRNGKeyArray,
        lam: Finite[Float[ArrayLike, "M p"]] | None = None,
        points: Finite[Float[ArrayLike, "M N d"]] | None = None,
    ) -> Batch:
        """New λ, collocation points and points of the conditions.

        Args:
            model: decides where adaptive points gather.
            key: a JAX random key.
            lam: values of λ to take instead, without observations.
            points: collocation points to take instead, N for each λ.
        """
        if lam is not None:
            lam = array("lam", lam, "M", len(self.problem.parameters))
        if points is not None:
            points = array("points", points, "M", "N", len(self.problem.domain))
        return programs.call(self._sample, model, key, lam, points)

    def _sample(
        self,
        model: AbstractModel,
        key: PRNGKeyArray,
        lam: Array | None,
        points: Array | None,
    ) -> Batch:
        box, where = self.problem.parameters, self.problem.conditions
        _look_at_middle(model, self.problem)
        lam_key, point_key, *keys = jr.split(key, 2 + len(where))
        terms, items = self.terms, dict[str, Any]()
        seen = self.observations if terms.pop("observations", None) else None
        if lam is None:
            lam = jnp.zeros((0, len(box)))
            if terms:
                lam = self.sample_lam(box, self.n_lam, key=lam_key)
                lam = array("sample_lam(box, n)", lam, "M", len(box))
            if seen is not None:
                items["observations"] = seen.among(len(lam))
                lam = jnp.concatenate([lam, seen.lam.astype(lam.dtype)])
        if "physics" in terms:
            if points is None:
                points = self._collocation(model, lam, key=point_key)
            items["physics"] = points
        for name, one in zip(where, keys, strict=True):
            if name in terms:
                items[name] = self._places(where[name], lam, key=one)
        # Everything is computed in the precision of the weights.
        lam, items = cast((lam, items), dtype_of(model))
        return Batch(lam, items)

    def _places(
        self, where: Where, lam: Float[Array, "M p"], *, key: PRNGKeyArray
    ) -> Places:
        def draw(lam: Array, key: PRNGKeyArray) -> Places:
            domain, value = self.problem.domain, unpack(self.problem.parameters, lam)
            return condition_points(domain, where, self.n_conditions, value, key=key)

        return jax.vmap(draw)(lam, jr.split(key, len(lam)))

    def _collocation(
        self, model: AbstractModel, lam: Float[Array, "M p"], *, key: PRNGKeyArray
    ) -> Float[Array, "M N d"]:
        domain, box = self.problem.domain, self.problem.parameters
        if not self.adaptive and isinstance(domain, Box):
            return uniform(domain, (len(lam), self.n_points), key=key)

        def gathered(pair: tuple[Array, PRNGKeyArray]) -> Array:
            lam, key = pair
            value = unpack(box, lam)
            if not self.adaptive:
                return uniform(domain, (self.n_points,), value, key=key)
            net = model(lam)

            def size(points: Array) -> Float[Array, " c"]:
                r = self._equation("physics", net, lam, points)
                return jnp.sqrt(jnp.sum(r.reshape(len(r), -1) ** 2, axis=1))

            return residual_adaptive(size, domain, self.n_points, value, key=key)

        return map_lam(gathered, (lam, jr.split(key, len(lam))))


def _look_at_middle(model: Any, problem: AbstractPDE) -> None:
    """Warns of a network that may jump where nothing looks."""
    if not isinstance(model, AbstractModel):
        return
    middle = jnp.zeros(len(problem.parameters))
    odd = eqx.filter_eval_shape(model.generate, middle).spec.odd
    faces = {face for place in problem.conditions.values() for face in place.faces}
    if odd is not None and (odd, 0.0) not in faces:
        warnings.warn(
            f"the network is odd in {odd}, and {problem} has no condition at "
            f"{odd} = 0, where it may jump unseen; ask for the value 0 there by "
            f"condition({odd}=0)",
            stacklevel=2,
        )


@checked
def residuals(
    net: Callable[[Array], Array],
    problem: AbstractPDE,
    lam: ArrayLike,
    points: ArrayLike,
    *,
    factor: Weight | None = None,
) -> Float[Array, " n *m"]:
    """The residual N[u; λ] of a network at n points, in the network's precision.

    Whatever precision the constants of a problem have, the residual is rounded to that.

    Args:
        net: a main network, or any function of one point.
        problem: the family of equations.
        lam: one λ, shape (p,), physical units.
        points: collocation points, shape (n, d).
        factor: multiplies each residual, see `slope_weight`.

    Returns:
        Shape (n,), or (n, m) for a problem of m equations.

    Raises:
        ValueError: what the network, the problem or the factor returns has another
            shape.
    """
    return _residuals(net, problem, "physics", lam, points, None, factor)


def condition_residuals(
    net: Callable[[Array], Array],
    problem: AbstractPDE,
    name: str,
    lam: ArrayLike,
    places: Places,
) -> Float[Array, " n *m"]:
    """The residual of a condition at n places, likewise."""
    return _residuals(net, problem, name, lam, places.point, places.normal, None)


def _residuals(
    net: Callable[[Array], Array],
    problem: AbstractPDE,
    name: str,
    lam: ArrayLike,
    points: ArrayLike,
    normal: Array | None,
    factor: Weight | None,
) -> Float[Array, " n *m"]:
    letters, use = problem.domain.names, use_of(problem, name)
    words = [word for word in use.derivatives if word != "n"]
    if use.normal:
        words += [letter for letter in letters if letter not in words]
    with precision(net.dtype if isinstance(net, MainNet) else jnp.result_type(float)):
        lam = array("lam", lam, len(problem.parameters), finite=True)
        points = array("points", points, "n", len(letters), finite=True)
        jet = jets(net, points, words, letters)
        u, dtype = by_field(jet, problem.fields), jet.value.dtype
        if normal is not None and use.normal:
            u = [with_normal(jet, letters, normal.astype(dtype)) for jet in u]
        value = unpack(problem.parameters, lam.astype(dtype))
        own = method(problem, name)

        def one(u: list[Jet], point: Array) -> Array:
            return numbers(problem, name, own(arranged(u), point, value))

        r = jax.vmap(one)(u, points.astype(dtype)).astype(dtype)
        if factor is not None:
            by = array("factor of all points", factor(arranged(u)), len(points))
            r = by.astype(dtype)[:, None] * r
        return r[:, 0] if use.size == 1 else r


@checked
def slope_weight(*names: str) -> Weight:
    """The factor `1 / (1 + |∂u|)` of a residual, e.g. `slope_weight("x")`.

    The letters of a derivative come in any order.

    Inside a shock the residual is large but says little about where the shock is;
    this turns the optimiser's attention to the smooth flow that decides it. The
    factor itself is not differentiated. (Ferrer-Sánchez et al. 2024, CMAME 424.)

    Raises:
        ValueError: when the factor is computed, a name of no derivative in the jet.
    """

    def weight(u: Jet | tuple[Jet, ...]) -> Array:
        fields = u if isinstance(u, tuple) else (u,)
        found = [
            {canonical(word): slope for word, slope in jet.derivatives.items()}
            for jet in fields
        ]
        words = [canonical(name) for name in names]
        for word in words:
            choice("names", word, dict.fromkeys(itertools.chain(*found)))
        slopes = [jnp.abs(own[word]) for own in found for word in words if word in own]
        slope = sum(slopes, start=jnp.zeros_like(fields[0].value))
        return jax.lax.stop_gradient(1 / (1 + slope))

    return weight
