"""What a family of differential equations has to say about itself."""

import abc
import warnings
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .. import _arguments as checks
from ..box import Box
from ..networks.jets import Jet


class AbstractPDE(eqx.Module):
    """A family of equations N[u; λ] = 0 on a box, for λ in another box.

    Subclass it to describe your own equation; samplers, losses, training and metrics
    take any instance. Coordinates have one-letter names. One called `t` is the time:
    the problem starts from `initial` at its lower end. All others are space: at both
    ends of each, u is `boundary`. A periodic coordinate has no ends, so that a problem
    whose coordinates are all periodic has neither method. All methods act on one point,
    and what they return is rounded to the network's precision. A family whose solutions
    are known may add `exact(t, x, lam)`, with as many coordinates as it has,
    broadcasting, for which `family_error` and `plot_slices` ask.

    Attributes:
        domain: the coordinates and their ranges, e.g. `Box(t=(0, 1), x=(-1, 1))`.
        parameters: the range of λ, e.g. `Box(nu=(1e-3, 1e-1, "log"))`.
        derivatives: what the residual needs, e.g. `("t", "x", "xx")`.

    Raises:
        ValueError: a coordinate's name is not one letter; a derivative is not a word of
            these letters; or `initial` or `boundary` prescribes something, but the
            domain has no initial time, or no walls, for it.
        TypeError: an attribute or a method is missing or something else.

    Warns:
        UserWarning: a method for which the domain has no place prescribes zero.

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
        where = {
            "initial": ("an initial time: a coordinate t that is not periodic", True),
            "boundary": ("walls: a coordinate other than t, not periodic", False),
        }
        for name, (place, in_time) in where.items():
            defined = getattr(type(self), name) is not getattr(AbstractPDE, name)
            asked = any(has_ends(self.domain, time=in_time))
            if asked and not defined:
                raise TypeError(
                    f"{type(self).__name__} has no method {name}, expected one: "
                    f"{self.domain} has {place}"
                )
            if defined and not asked:
                self._check_says_nothing(name, place)

    def _check_says_nothing(self, name: str, place: str) -> None:
        """A condition that nobody will ask for must not be meant."""
        own = f"{type(self).__name__}.{name}"
        unasked = (
            f"{own} will never be asked: {self.domain} does not have {place}, expected "
        )
        values = np.array([-0.9, -0.3, 0.2, 0.7])
        try:
            said = [
                np.asarray(getattr(self, name)(point, lam))
                for point in self.domain.unscale(
                    jnp.asarray(np.tile(values[:, None], len(self.domain)))
                )
                for lam in unpack(
                    self.parameters,
                    self.parameters.unscale(
                        jnp.asarray(np.tile(values[:, None], len(self.parameters)))
                    ),
                )
            ]
            silent = not np.any(said)
        except Exception:
            # It says itself that it is not to be asked.
            return
        if not silent:
            raise ValueError(f"{unasked}no such method, or a domain that has it")
        # Without any space, zero on its walls can mean nothing.
        if self.domain.names != ("t",):
            warnings.warn(f"{unasked}no such method", stacklevel=5)

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

    def initial(
        self, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        """The prescribed u at a point of the initial time, if there is one."""
        raise NotImplementedError

    def boundary(
        self, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        """The prescribed u at a point of the boundary in space, if there is one."""
        raise NotImplementedError


def has_ends(domain: Box, *, time: bool) -> list[bool]:
    """Which coordinates have ends where u is prescribed: in time, or in space."""
    return [
        (name == "t") == time and not periodic
        for name, periodic in zip(domain.names, domain.periodic, strict=True)
    ]


def unpack(parameters: Box, lam: Float[Array, "... p"]) -> Float[Array, "..."]:
    """λ as a problem's methods receive it: if there is only one, without its axis."""
    return lam[..., 0] if len(parameters) == 1 else lam


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
