"""What noisy observations say about λ, as weighted samples."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from . import checks


class Inference(eqx.Module):
    """What noisy observations say about λ.

    Under `jax.vmap`, every attribute gains the same axes in front, and `interval` and
    `effective` go along.

    Attributes:
        lam: the most probable λ, physical units, shape (p,).
        covariance: Laplace's approximation around it, in scaled units: the inverse of
            JᵀJ + 3, where J holds the derivatives of the predictions in units of their
            noise, and 3 is the precision of the prior. Shape (p, p), with zeros for a
            fixed parameter.
        samples: S values of λ, physical units, shape (S, p). On a periodic axis they
            lie within half a period of `lam`, and so may leave the range.
        weights: how much each of them counts, with a sum of 1, shape (S,): together
            they are the posterior, however skewed or cut off.
        noise: the standard deviation of the noise, as given, or as estimated.

    Raises:
        ValueError: arrays of other shapes.
    """

    lam: Float[Array, "*batch p"]
    covariance: Float[Array, "*batch p p"]
    samples: Float[Array, "*batch S p"]
    weights: Float[Array, "*batch S"]
    noise: Float[Array, "..."]

    def __init__(
        self,
        lam: Float[ArrayLike, " p"],
        covariance: Float[ArrayLike, "p p"],
        samples: Float[ArrayLike, "S p"],
        weights: Float[ArrayLike, " S"],
        noise: Float[ArrayLike, "..."],
    ):
        self.lam = checks.array("lam", lam, "p")
        self.covariance = checks.array("covariance", covariance, "p", "p")
        self.samples = checks.array("samples", samples, "S", "p")
        self.weights = checks.array("weights", weights, "S")
        self.noise = checks.array("noise", noise, "...")
        p, n = len(self.lam), len(self.weights)
        if self.covariance.shape != (p, p) or self.samples.shape != (n, p):
            raise ValueError(
                f"lam, covariance, samples and weights have shapes {self.lam.shape}, "
                f"{self.covariance.shape}, {self.samples.shape} and "
                f"{self.weights.shape}, expected (p,), (p, p), (S, p) and (S,)"
            )

    @property
    def effective(self) -> Float[Array, "..."]:
        """How many samples of equal weight would say as much, 1 / Σ w².

        Below a hundred or so, intervals are rough; take more samples.
        """
        return 1 / jnp.sum(self.weights**2, axis=-1)

    def interval(
        self, level: float = 0.9
    ) -> tuple[Float[Array, "... p"], Float[Array, "... p"]]:
        """The central credible interval: as probable to be missed on either side.

        Args:
            level: the probability that λ lies inside, between 0 and 1.

        Returns:
            Lower and upper ends in physical units, each of shape (p,).

        Raises:
            ValueError: a level that is not between 0 and 1.
        """
        level = checks.positive("level", level)
        if level >= 1:
            raise ValueError(f"level = {level}, expected a number below 1")
        low, high = _quantiles(self.samples, self.weights, (1 - level) / 2)
        return low, high


@jax.jit
def _quantiles(samples: Array, weights: Array, tail: ArrayLike) -> tuple[Array, Array]:
    """What cuts off a tail on either side, of each parameter."""

    def one(values: Array, weights: Array) -> tuple[Array, Array]:
        order = jnp.argsort(values)
        values, weights = values[order], weights[order]
        # Half of each sample's weight lies on either side of it.
        below = jnp.cumsum(weights) - weights / 2
        return jnp.interp(tail, below, values), jnp.interp(1 - tail, below, values)

    every = jax.vmap(one, (1, None))
    return jnp.vectorize(every, signature="(s,p),(s)->(p),(p)")(samples, weights)
