"""What a family of differential equations has to say about itself."""

import abc
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float

from .. import checks
from ..box import Box
from ..jets import Jet


class AbstractPDE(eqx.Module):
    """A family of equations N[u; λ] = 0 on a box, for λ in another box.

    Subclass it to describe your own equation; samplers, losses, training and metrics
    take any instance. Coordinates have one-letter names; if one of them is `t`, the
    problem starts from `initial` at its lower end; where one is periodic, there are no
    walls. All methods act on one point. A family whose solutions are known may add
    `exact(t, x, lam)`, with as many coordinates as it has, broadcasting, for which
    `family_error` and `plot_slices` ask.

    Attributes:
        domain: the coordinates and their ranges, e.g. `Box(t=(0, 1), x=(-1, 1))`.
        parameters: the range of λ, e.g. `Box(nu=(1e-3, 1e-1, "log"))`.
        derivatives: what the residual needs, e.g. `("t", "x", "xx")`.

    Raises:
        ValueError: a coordinate's name is not one letter, or a derivative not a word of
            these letters.
        TypeError: an attribute or a method is missing or something else.

    >>> import jax.numpy as jnp
    >>> class Heat(AbstractPDE):
    ...     domain = Box(t=(0, 1), x=(-1, 1))
    ...     parameters = Box(kappa=(0.01, 1.0, "log"))
    ...     derivatives = ("t", "xx")
    ...
    ...     def residual(self, u, tx, lam):
    ...         return u.t - lam * u.xx
    ...
    ...     def initial(self, tx, lam):
    ...         return -jnp.sin(jnp.pi * tx[1])
    ...
    ...     def boundary(self, tx, lam):
    ...         return jnp.zeros(())
    >>> Heat().parameters
    Box(kappa=(0.01, 1.0, 'log'))
    """

    domain: eqx.AbstractClassVar[Box]
    parameters: eqx.AbstractClassVar[Box]
    derivatives: eqx.AbstractClassVar[tuple[str, ...]]

    def __check_init__(self) -> None:
        checks.instance("domain", self.domain, Box)
        checks.instance("parameters", self.parameters, Box)
        checks.instance("derivatives", self.derivatives, (tuple, list))
        letters = self.domain.names
        if any(len(name) > 1 for name in letters):
            raise ValueError(f"domain = {self.domain}, expected names of one letter")
        for word in self.derivatives:
            if not isinstance(word, str) or not word or set(word) - set(letters):
                raise ValueError(
                    f"derivatives: {word!r}, expected letters of {letters}"
                )

    @abc.abstractmethod
    def residual(
        self, u: Jet, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        """N[u; λ] at one point.

        Args:
            u: the jet of the network at that point, with the named derivatives.
            tx: the point, shape (d,).
            lam: λ in physical units: shape () for one parameter, else (p,).
        """

    @abc.abstractmethod
    def initial(
        self, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        """The prescribed u at a point of the initial time."""

    @abc.abstractmethod
    def boundary(
        self, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        """The prescribed u at a point of the boundary in space."""


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
            ValueError: λ or, later, the state has the wrong shape or is not finite, or
                λ is not positive where its whole range is.

        Warns:
            UserWarning: λ lies outside the range.
        """
        value = self.parameters.parameter(lam)

        def field(x: ArrayLike) -> Array:
            x = checks.array("x", x, len(self.initial), finite=True)
            return self.field(x, value.astype(x.dtype))

        return field
