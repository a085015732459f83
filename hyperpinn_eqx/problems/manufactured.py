"""A family with a known solution, made out of one without."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._arguments import checked
from ..box import Box
from ..networks.jets import Jet, by_field, jets, with_normal
from .base import AbstractPDE
from .conditions import Where
from .mapped import Mapped
from .recorded import arranged, method, numbers, use_of


@checked
class Manufactured(AbstractPDE):
    """The same equation with a source that makes a chosen function its solution.

    For any v(x; λ), the equation N[u; λ] = N[v; λ], with every condition changed in the
    same way, is solved by v. It is trained like the original, has its terms, and its
    error can be measured: the method of manufactured solutions (Roache 2002, J. Fluids
    Eng. 124).

    Args:
        problem: the family of equations.
        solution: from one point, shape (d,), and λ, shape () for one parameter and
            (p,) for several, to v, shape (), or (k,) for k fields; written with
            `jax.numpy`.

    >>> from hyperpinn_eqx import AllenCahn, residuals
    >>> def v(tx, lam):
    ...     return jnp.exp(-lam * tx[0]) * jnp.cos(tx[1])
    >>> made = Manufactured(AllenCahn(), v)
    >>> points = jnp.array([[0.5, 1.0], [2.0, 3.0]])
    >>> r = residuals(lambda tx: v(tx, 0.1), made, jnp.array([0.1]), points)
    >>> bool(jnp.all(jnp.abs(r) < 1e-6))
    True
    """

    problem: AbstractPDE
    solution: Callable[[Array, Array], Array] = eqx.field(static=True)

    @property
    def domain(self) -> Box | Mapped:  # type: ignore[override]
        return self.problem.domain

    @property
    def parameters(self) -> Box:  # type: ignore[override]
        return self.problem.parameters

    @property
    def fields(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.problem.fields

    @property
    def conditions(self) -> dict[str, Where]:
        return self.problem.conditions

    def residual(self, u: Any, tx: Float[Array, " d"], lam: Float[Array, "*p"]) -> Any:
        return self._without_source("physics", u, tx, lam)

    def condition_residual(
        self, name: str, u: Any, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Any:
        return self._without_source(name, u, tx, lam)

    def _without_source(self, name: str, u: Any, tx: Array, lam: Array) -> Any:
        problem, letters = self.problem, self.domain.names
        use = use_of(problem, name)
        words = [word for word in use.derivatives if word != "n"]
        words += [x for x in letters if use.normal and x not in words]
        v = jets(lambda p: self.solution(p, lam), tx[None], words, letters)
        each = by_field(v, self.fields)
        known = [jax.tree.map(lambda a: a[0], jet) for jet in each]
        if use.normal:
            normal = (u if isinstance(u, Jet) else u[0]).normal
            known = [with_normal(jet, letters, normal) for jet in known]
        there = method(problem, name)(arranged(known), tx, lam)
        here = method(problem, name)(u, tx, lam)
        return tuple(numbers(problem, name, here) - numbers(problem, name, there))

    def exact(self, *coordinates_and_lam: ArrayLike) -> Any:
        """The chosen function: `exact(t, x, lam)`, with broadcasting coordinates."""
        *coordinates, lam = map(jnp.asarray, coordinates_and_lam)

        def at(*point: Array) -> tuple[Array, ...]:
            return tuple(jnp.atleast_1d(self.solution(jnp.stack(point), lam)))

        found = jnp.vectorize(at)(*coordinates)
        return found[0] if len(self.fields) == 1 else found
