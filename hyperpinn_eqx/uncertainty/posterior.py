"""What noisy observations say about λ, as weighted samples."""

import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._arguments import ArrayLike, Probability, checked
from ..box import Box
from ..networks.main import precision

# By how many standard deviations the observations have to want λ beyond its range.
# From a true λ on the very end, they do so once in 700 cases.
_BEYOND = 3.0
# How improbable a misfit has to be, in standard deviations: a millionth.
_IMPROBABLE = 4.75
# Noise that is known to a fifth is known well.
_ROUGHLY = 1.2


@checked
class Posterior(eqx.Module):
    """What noisy observations say about λ.

    Under `jax.vmap`, every attribute gains the same axes in front, and `interval` and
    `effective_sample_size` go along.

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
    """

    lam: Float[Array, "*batch p"]
    covariance: Float[Array, "*batch p p"]
    samples: Float[Array, "*batch S p"]
    weights: Float[Array, "*batch S"]
    noise: Float[Array, "..."]

    @property
    def effective_sample_size(self) -> Float[Array, "..."]:
        """How many samples of equal weight would say as much, 1 / Σ w².

        Below a hundred or so, intervals are rough; take more samples. `infer` warns if
        it is next to nothing.
        """
        with precision(self.weights.dtype):
            return 1 / jnp.sum(self.weights**2, axis=-1)

    @checked
    def interval(
        self, level: Probability = 0.9
    ) -> tuple[Float[Array, "... p"], Float[Array, "... p"]]:
        """The central credible interval: as probable to be missed on either side.

        Args:
            level: the probability that λ lies inside, between 0 and 1.

        Returns:
            Lower and upper ends in physical units, each of shape (p,).
        """
        with precision(self.samples.dtype):
            low, high = _quantiles(self.samples, self.weights, (1 - level) / 2)
        return low, high


class Fit(NamedTuple):
    """How the most probable λ fits, in units of the noise.

    Attributes:
        z: its free parameters, scaled.
        misfit: the sum of squares.
        slope: of the logarithm of the likelihood by z.
        curvature: JᵀJ.
        observations: how many of them count.
    """

    z: Float[Array, "*batch d"]
    misfit: Float[Array, "*batch"]
    slope: Float[Array, "*batch d"]
    curvature: Float[Array, "*batch d d"]
    observations: Float[Array, "*batch"]


def warn(found: Posterior, box: Box, fit: Fit, known: bool) -> None:
    """Says on behalf of the caller's caller what makes a result doubtful.

    Warns:
        UserWarning: λ on an end of its range, a misfit by far more than the noise, or
            weights on very few samples.
    """
    z, slope = np.asarray(fit.z, float), np.asarray(fit.slope, float)
    curvature, count = np.asarray(fit.curvature, float), float(fit.observations)
    free = np.flatnonzero(np.array(box.low) < np.array(box.high))
    dof = max(count - len(free), 1.0)
    tolerance = float(jnp.finfo(found.lam.dtype).eps) ** 0.5
    at_end = (np.abs(z) > 0.99) & ~np.array(box.periodic)[free]
    for i in np.flatnonzero(at_end):
        # Other parameters move along, unless they lie on an end too.
        moving = ~at_end
        moving[i] = True
        inverse = np.linalg.pinv(curvature[np.ix_(moving, moving)])
        variance = np.diag(inverse)[np.count_nonzero(moving[:i])]
        pull = slope[i] * np.sign(z[i])
        # A pull below 1 leaves the posterior about even; a step that is as small as
        # the error of the search is none.
        if pull > 1 and variance * pull > tolerance:
            beyond = _deviations(pull * np.sqrt(variance), dof, known)
            if beyond > _BEYOND:
                j = free[i]
                end, which = (box.high, "upper") if z[i] > 0 else (box.low, "lower")
                warnings.warn(
                    f"box: the best {box.names[j]} lies on the {which} end of its "
                    f"range, {end[j]:g}, and the observations want it beyond, by "
                    f"{beyond:.2g} standard deviations: the interval means nothing "
                    "if the range is wrong",
                    stacklevel=4,
                )
    misfit = float(fit.misfit)
    times = (misfit / count) ** 0.5
    # The cube root of a sum of squares is nearly Gaussian (Wilson and Hilferty 1931).
    third = 2 / (9 * dof)
    improbable = ((misfit / dof) ** (1 / 3) - (1 - third)) / third**0.5
    if known and times > _ROUGHLY and improbable > _IMPROBABLE:
        warnings.warn(
            f"observations: they miss the best prediction by {times:.2g} times the "
            "noise, as a root mean square: the interval means nothing unless "
            "predictions and noise are right",
            stacklevel=4,
        )
    effective, n = float(found.effective_sample_size), len(found.weights)
    # To the last digit, only one sample fits, and no interval is needed.
    width = np.sqrt(np.asarray(found.covariance).max())
    if effective < min(10, n / 20) and width > 100 * tolerance**2:
        warnings.warn(
            f"samples = {n} are worth {effective:.2g} only, and intervals are rough",
            stacklevel=4,
        )


def _deviations(pull: float, dof: float, known: bool) -> float:
    """How improbable a pull of so many estimated standard deviations is.

    In standard deviations of a Gaussian: an estimate of the noise contains the pull,
    as in Student's t (Wallace 1959, Ann. Math. Stat. 30).
    """
    if known:
        return pull
    left = max(1 - pull**2 / dof, 1e-12)
    return (8 * dof + 1) / (8 * dof + 3) * np.sqrt(-dof * np.log(left))


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
