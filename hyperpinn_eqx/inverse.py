"""The inverse problem: λ from noisy observations, and how well they determine it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.scipy.special import ndtri
from jaxtyping import Array, ArrayLike, Float

from . import checks
from .box import Box
from .inference import Inference

# Half of the samples come from Laplace's Gaussian, its standard deviations widened by
# this factor: a proposal with thinner tails than the posterior would hide them.
_WIDER = 1.5
# The precision of a distribution that is uniform on [-1, 1].
_PRIOR = 3.0


def infer(
    predict: Callable[[Float[Array, " p"]], Array],
    observations: Float[ArrayLike, "..."],
    box: Box,
    *,
    noise: Float[ArrayLike, "..."] | None = None,
    samples: int = 1000,
) -> Inference:
    """λ from noisy observations, by differentiating through their prediction.

    The noise is Gaussian and independent, and the prior uniform over the box in scaled
    units: in the logarithm on a log axis. Half of the samples are spread over the box.
    From the best of these, Levenberg-Marquardt goes to the maximum of the posterior.
    The other half come from Laplace's Gaussian there, widened, and all are weighted by
    the posterior over the mixture of both (Owen and Zhou 2000, J. Am. Stat. Assoc. 95).

    It can be jitted and vmapped: a hundred cases at once, with `predict` made inside.

    Args:
        predict: from λ in physical units, shape (p,), to what would be observed there
            without noise: networks of a hypernetwork at some points, or a solver. It
            needs forward-mode derivatives; Diffrax has them with
            `adjoint=diffrax.ForwardMode()`. A prediction that is not finite excludes
            its λ.
        observations: of any shape.
        box: the range of λ, such as a problem's or a model's `parameters`; fixed
            parameters stay fixed.
        noise: its standard deviation, one for all observations or one for each. If
            None, it is the same for all and not known, with the prior 1 / noise.
        samples: how many predictions to make, apart from those of the search.

    Returns:
        An `Inference`.

    Raises:
        ValueError: observations that are not finite, or of another shape than the
            predictions; noise that is not positive, or does not broadcast to them;
            unknown noise with no more observations than parameters; fewer than 16
            samples; a box without a free parameter; or no finite prediction at all.
        TypeError: `predict` is no function, or `box` no `Box`.

    >>> t = jnp.linspace(0, 1, 20)
    >>> box = Box(rate=(0.1, 10, "log"))
    >>> seen = jnp.exp(-2 * t) + 0.02 * jnp.sin(99 * t)
    >>> found = infer(lambda lam: jnp.exp(-lam * t), seen, box, noise=0.02)
    >>> low, high = found.interval(0.9)
    >>> print(found.lam.round(1), (low < 2) & (2 < high))
    [2.] [ True]
    """
    checks.function("predict", predict)
    checks.instance("box", box, Box)
    free = len(_free(box))
    if not free:
        raise ValueError(f"box = {box}, expected one with a free parameter")
    kind = jnp.result_type(float)
    seen = checks.array("observations", observations, "...", finite=True).astype(kind)
    one = jax.ShapeDtypeStruct((len(box),), kind)
    shape = jax.eval_shape(lambda lam: jnp.asarray(predict(lam)), one).shape
    if seen.shape != shape:
        raise ValueError(
            f"observations has shape {seen.shape}, expected that of predict(lam), "
            f"{shape}"
        )
    if noise is None and seen.size <= free:
        raise ValueError(
            f"noise = None with {seen.size} observations, expected a number, or more "
            f"observations than the {free} free parameters"
        )
    known = None if noise is None else _deviation(noise, seen)
    samples = checks.count("samples", samples, 16)
    found = _infer(predict, seen, box, known, samples)
    traced = isinstance(found.weights, jax.core.Tracer)
    if not traced and not jnp.isfinite(found.weights).all():
        raise ValueError(
            f"predict = {predict!r} gives no finite numbers, expected some in {box}"
        )
    return found


def _free(box: Box) -> np.ndarray:
    """Which parameters are not fixed."""
    return np.flatnonzero(np.array(box.low) < np.array(box.high))


def _deviation(noise: ArrayLike, seen: Array) -> Array:
    found = checks.array("noise", noise, "...", finite=True).astype(seen.dtype)
    try:
        fits = jnp.broadcast_shapes(found.shape, seen.shape) == seen.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"noise has shape {found.shape}, expected one number, or the shape of the "
            f"observations, {seen.shape}"
        )
    if not isinstance(found, jax.core.Tracer) and not (found > 0).all():
        raise ValueError(f"noise = {noise!r}, expected numbers above 0")
    return found


@eqx.filter_jit
def _infer(
    predict: Callable[[Array], Array],
    seen: Array,
    box: Box,
    noise: Array | None,
    samples: int,
) -> Inference:
    free, p, kind = _free(box), len(box), seen.dtype
    d, periodic = len(free), np.array(box.periodic)[free]

    def physical(z: Array) -> Array:
        return box.unscale(jnp.zeros((*z.shape[:-1], p), kind).at[..., free].set(z))

    def residuals(z: Array) -> Array:
        gap = jnp.asarray(predict(physical(z)), kind) - seen
        return (gap if noise is None else gap / noise).ravel()

    def misfit(z: Array) -> Array:
        total = jnp.sum(residuals(z) ** 2)
        return jnp.where(jnp.isfinite(total), total, jnp.inf)

    # What cannot leave the range.
    def inside(w: Array) -> Array:
        return jnp.where(periodic, (w + 1) % 2 - 1, jnp.sin(w))

    spread = jnp.asarray(2 * _lattice(samples // 2, d) - 1, kind)
    misfits = jax.vmap(misfit)(spread)
    start = spread[jnp.argmin(misfits)]
    tolerance = float(jnp.finfo(kind).eps) ** 0.5
    found: optx.Solution = optx.least_squares(
        lambda w, _: residuals(inside(w)),
        optx.LevenbergMarquardt(tolerance, tolerance),
        jnp.where(periodic, start, jnp.arcsin(start)),
        max_steps=64,
        throw=False,
    )
    z = inside(found.value)

    # Where the fit is perfect, unknown noise is that of rounding.
    floor = seen.size * (jnp.finfo(kind).eps * (1e-9 + jnp.abs(seen).max())) ** 2
    J, deviation = jax.jacfwd(residuals)(z), noise
    if deviation is None:
        deviation = jnp.sqrt((misfit(z) + floor) / (seen.size - d))
        J = J / deviation
    covariance = jnp.linalg.inv(J.T @ J + _PRIOR * jnp.eye(d, dtype=kind))

    # A circle is seen from z, and has no outside.
    middle = jnp.where(periodic, z, 0.0)[None]
    around = z[None] + (spread - z[None] + 1) % 2 - 1
    spread = jnp.where(periodic[None], around, spread)
    root = _WIDER * jnp.linalg.cholesky(covariance)
    normal = jnp.asarray(ndtri(_lattice(samples - samples // 2, d)), kind)
    near = z[None] + normal @ root.T
    outside = jnp.any(jnp.abs(near - middle) > 1, axis=1)
    near = jnp.clip(near, middle - 1, middle + 1)
    near_misfits = jnp.where(outside, jnp.inf, jax.vmap(misfit)(near))

    points, misfits = jnp.vstack([spread, near]), jnp.append(misfits, near_misfits)
    # With unknown noise integrated out, the likelihood is a power of the misfit.
    power = -seen.size / 2 * jnp.log(misfits + floor)
    likelihood = power if noise is None else -misfits / 2
    normal = jax.scipy.linalg.solve_triangular(root, (points - z[None]).T, lower=True)
    peak = -jnp.sum(jnp.log(jnp.diag(root))) - d / 2 * np.log(2 * np.pi)
    proposal = jnp.logaddexp(-d * np.log(2), peak - jnp.sum(normal**2, axis=0) / 2)
    weights = jax.nn.softmax(likelihood - proposal)
    whole = jnp.zeros((p, p), kind).at[np.ix_(free, free)].set(covariance)
    return Inference(physical(z), whole, physical(points), weights, deviation)


def _lattice(n: int, d: int) -> Float[np.ndarray, "n d"]:
    """Points that fill the unit cube evenly.

    Multiples, modulo 1, of the powers of an irrational number: for d = 1, of the
    golden ratio.
    """
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (d + 1))
    return (0.5 + np.outer(np.arange(n), root ** -np.arange(1.0, d + 1))) % 1
