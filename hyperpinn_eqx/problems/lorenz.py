"""The Lorenz system with two of its three parameters free."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..box import Box
from .base import AbstractODE


class Lorenz(AbstractODE):
    """The Lorenz system (Lorenz 1963), paper eq. 4.

    dx/dt = σ (y - x), dy/dt = x (ρ - z) - y, dz/dt = x y - β z, for λ = (σ, β, ρ) in
    the paper's order: σ = 10, β in [2/3, 8/3], ρ in [0, 28]. States start in
    [-10, 10]³ (paper A.6).

    >>> print(Lorenz()(jnp.array([10, 2, 28]))(jnp.array([1.0, 2.0, 3.0])))
    [10. 23. -4.]
    """

    initial: ClassVar[Box] = Box(x=(-10, 10), y=(-10, 10), z=(-10, 10))
    parameters: ClassVar[Box] = Box(sigma=(10, 10), beta=(2 / 3, 8 / 3), rho=(0, 28))

    def field(
        self, x: Float[Array, " 3"], lam: Float[Array, " 3"]
    ) -> Float[Array, " 3"]:
        σ, β, ρ = lam
        x, y, z = x
        return jnp.stack([σ * (y - x), x * (ρ - z) - y, x * y - β * z])
