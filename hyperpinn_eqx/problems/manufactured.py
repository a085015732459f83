"""A family with a known solution, made out of one without."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._arguments import checked
from ..box import Box
from ..networks.jets import Jet, jets
from .base import AbstractPDE


@checked
class Manufactured(AbstractPDE):
    """The same equation with a source that makes a chosen function its solution.

    For any v(x; λ), the equation N[u; λ] = N[v; λ] with the values of v at the initial
    time and at the walls is solved by v. It is trained like the original, has its
    terms, and its error can be measured: the method of manufactured solutions (Roache
    2002, J. Fluids Eng. 124).

    Args:
        problem: the family of equations.
        solution: from one point, shape (d,), and λ, shape () for one parameter and
            (p,) for several, to v, shape (); written with `jax.numpy`.

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

    def _check_says_nothing(self, name: str, place: str) -> None:
        """It prescribes v wherever it is asked, and so needs no place to be."""

    @property
    def domain(self) -> Box:  # type: ignore[override]
        return self.problem.domain

    @property
    def parameters(self) -> Box:  # type: ignore[override]
        return self.problem.parameters

    @property
    def derivatives(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.problem.derivatives

    def residual(
        self, u: Jet, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        names = self.domain.names
        v = jets(lambda p: self.solution(p, lam), tx[None], self.derivatives, names)
        v = Jet(v.value[0], {name: a[0] for name, a in v.derivatives.items()})
        source = self.problem.residual(v, tx, lam)
        return self.problem.residual(u, tx, lam) - source

    def initial(
        self, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        return self.solution(tx, lam)

    def boundary(
        self, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        return self.solution(tx, lam)

    def exact(self, *coordinates_and_lam: ArrayLike) -> Float[Array, "*n"]:
        """The chosen function: `exact(t, x, lam)`, with broadcasting coordinates."""
        *coordinates, lam = map(jnp.asarray, coordinates_and_lam)
        at = jnp.vectorize(lambda *point: self.solution(jnp.stack(point), lam))
        return at(*coordinates)
