"""What a family of differential equations has to say about itself."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float

from .. import _arguments as checks
from ..box import Box
from .conditions import Where
from .conditions import condition as condition
from .mapped import Mapped


class AbstractPDE(eqx.Module):
    """A family of equations N[u; λ] = 0 on a domain, for λ in a box.

    Subclass it to describe your own equation; samplers, losses, training and metrics
    take any instance. It has a method `residual`, and a method for every condition,
    marked by `condition` with the faces where it holds. All of them act on one point;
    which derivatives they use is found out by calling them, and what they return is
    rounded to the network's precision. A family whose solutions are known may add
    `exact(t, x, lam)`, with as many coordinates as it has, broadcasting, for which
    `family_error` and `plot_slices` ask: one array, or a tuple with one for each field.

    Attributes:
        domain: the coordinates and their ranges, e.g. `Box(t=(0, 1), x=(-1, 1))`, or
            the image of a box, see `Mapped`. Names of coordinates have one letter. A
            periodic coordinate has no faces.
        parameters: the range of λ, e.g. `Box(nu=(1e-3, 1e-1, "log"))`.
        fields: the names of the unknowns, one by default.

    Raises:
        ValueError: a coordinate's name is not one letter, or a condition is on a face
            that the domain does not have.
        TypeError: an attribute or a method is missing or something else.

    >>> import jax.numpy as jnp
    >>> class Heat(AbstractPDE):
    ...     domain = Box(t=(0, 1), x=(-1, 1))
    ...     parameters = Box(kappa=(0.01, 1.0, "log"))
    ...
    ...     def residual(self, u, tx, lam):
    ...         return u.t - lam * u.xx
    ...
    ...     @condition(t=0)
    ...     def start(self, u, tx, lam):
    ...         return u.value + jnp.sin(jnp.pi * tx[1])
    ...
    ...     @condition(x=(-1, 1))
    ...     def walls(self, u, tx, lam):
    ...         return u.value
    >>> print(*Heat().conditions)
    start walls
    """

    domain: eqx.AbstractClassVar[Box | Mapped]
    parameters: eqx.AbstractClassVar[Box]
    fields: ClassVar[tuple[str, ...]] = ("u",)

    def __check_init__(self) -> None:
        checks.instance("domain", self.domain, (Box, Mapped))
        checks.instance("parameters", self.parameters, Box)
        checks.instance("fields", self.fields, (tuple, list))
        names = self.domain.names
        if any(len(name) > 1 for name in names):
            raise ValueError(f"domain = {self.domain}, expected names of one letter")
        if "n" in names:
            raise ValueError(
                f"domain = {self.domain}, expected another name than n: u.n is the "
                "outward normal derivative"
            )
        if not self.fields or len(set(self.fields)) < len(self.fields):
            raise ValueError(f"fields = {self.fields}, expected different names")
        for name, where in self.conditions.items():
            if name in _TAKEN:
                raise ValueError(
                    f"a condition is called {name!r}, expected another name: the "
                    "history has that for something else"
                )
            _check_place(name, where, self.domain.reference)

    @abc.abstractmethod
    def residual(self, u: Any, tx: Float[Array, " d"], lam: Float[Array, "*p"]) -> Any:
        """N[u; λ] at one point: a number, or a tuple of several.

        Args:
            u: the jet of the network at that point, such that `u.value` is u itself and
                `u.xx` is ∂²u/∂x²; for several fields a tuple of jets, one for each.
            tx: the point, shape (d,).
            lam: λ in physical units: shape () for one parameter, else (p,).
        """

    @property
    def bounds(self) -> Box:
        """The box that holds the domain for every λ: what a main network takes.

        Raises:
            ValueError: a map that is not finite or folds, see `Mapped`.
        """
        return self.domain.bounds(self.parameters)

    @property
    def conditions(self) -> dict[str, Where]:
        """Where each condition holds, by the name of its method."""
        found = {}
        for cls in reversed(type(self).__mro__):
            for name in vars(cls):
                where = getattr(getattr(cls, name), "where", None)
                if isinstance(where, Where):
                    found[name] = where
        return found

    def condition_residual(
        self, name: str, u: Any, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Any:
        """What the condition of that name returns, called like `residual`."""
        return getattr(self, name)(u, tx, lam)


# What a history calls other things than a condition.
_TAKEN = ("physics", "observations", "conserved", "step", "seconds", "total")


def _check_place(name: str, where: Where, domain: Box) -> None:
    if where.at is not None:
        known = len(where.at) == len(domain) and all(
            value is None or low <= value <= high
            for value, low, high in zip(where.at, domain.low, domain.high, strict=True)
        )
        if not known:
            raise ValueError(
                f"condition {name!r} holds at {where.at}, expected a point of {domain}"
            )
        return
    ranges = domain.ranges()
    for coordinate, value in where.faces:
        low, high, *kind = ranges.get(coordinate, (1.0, 0.0))
        if kind == ["periodic"]:
            raise ValueError(
                f"condition {name!r} holds on {coordinate} = {value:g}, expected a "
                f"coordinate that is not periodic in {domain}"
            )
        if not low <= value <= high:
            raise ValueError(
                f"condition {name!r} holds on {coordinate} = {value:g}, expected a "
                f"face of {domain}"
            )


class AbstractODE(eqx.Module):
    """A family of autonomous systems dx/dt = f(x; λ), for λ in a box.

    Like a model, it is called with λ and returns a vector field: whatever takes a
    learned family takes the exact one too.

    Attributes:
        initial: the range of initial states; its names are those of the state.
        parameters: the range of λ.

    Raises:
        TypeError: an attribute or a method is missing or something else.

    >>> import jax.numpy as jnp
    >>> class Pendulum(AbstractODE):
    ...     initial = Box(angle=(-1, 1), speed=(-1, 1))
    ...     parameters = Box(damping=(0.1, 1.0))
    ...
    ...     def field(self, x, lam):
    ...         return jnp.array([x[1], -jnp.sin(x[0]) - lam[0] * x[1]])
    >>> print(Pendulum()(0.5)(jnp.array([0.0, 1.0])))
    [ 1.  -0.5]
    """

    initial: eqx.AbstractClassVar[Box]
    parameters: eqx.AbstractClassVar[Box]

    def __check_init__(self) -> None:
        checks.instance("initial", self.initial, Box)
        checks.instance("parameters", self.parameters, Box)

    @abc.abstractmethod
    def field(
        self, x: Float[Array, " d"], lam: Float[Array, " p"]
    ) -> Float[Array, " d"]:
        """f(x; λ) at one state, shape (d,), for λ in physical units, shape (p,)."""

    def __call__(self, lam: ArrayLike) -> Callable[[Array], Array]:
        """The exact vector field for λ in physical units.

        It computes in the precision of the state; integers become floating-point
        numbers.

        Raises:
            ValueError: λ is not positive where its whole range is.

        Warns:
            UserWarning: λ lies outside the range.
        """
        value = self.parameters.parameter(lam)

        def field(x: ArrayLike) -> Array:
            x = checks.array("x", x, len(self.initial), finite=True)
            return self.field(x, value.astype(x.dtype))

        return field
