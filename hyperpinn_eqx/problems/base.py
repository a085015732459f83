"""What a family of partial differential equations has to say about itself."""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from ..box import Box
from ..jets import Jet


class AbstractPDE(eqx.Module):
    """A family of equations N[u; λ] = 0 on a box, for λ in another box.

    Subclass it to describe your own equation; samplers, losses, training and metrics
    take any instance. Coordinates have one-letter names; if one of them is `t`, the
    problem starts from `initial` at its lower end. All methods act on one point.

    Attributes:
        domain: the coordinates and their ranges, e.g. `Box(t=(0, 1), x=(-1, 1))`.
        parameters: the range of λ, e.g. `Box(nu=(1e-3, 1e-1, "log"))`.
        derivatives: what the residual needs, e.g. `("t", "x", "xx")`.

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
