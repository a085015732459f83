"""The inverse problem: λ from noisy observations, and how well they determine it."""

import functools
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from .. import _arguments as checks
from .._arguments import ArrayLike, at_least, checked
from ..box import Box, lattice
from .posterior import Fit, Posterior, warn
from .predictions import Prediction, read

# Half of the samples come from Laplace's Gaussian, its standard deviations widened by
# this factor: a proposal with thinner tails than the posterior would hide them.
_WIDER = 1.5
# The precision of a distribution that is uniform on [-1, 1].
_PRIOR = 3.0
# How many numbers are predicted at the same time: more would not be faster, and a
# network needs a hundred bytes for each.
_BLOCK = 65536


@checked
def infer(
    predict: Callable[[Float[Array, " p"]], Array],
    observations: ArrayLike,
    box: Box,
    *,
    noise: ArrayLike | None = None,
    samples: Annotated[int, at_least(16)] = 1000,
) -> Posterior:
    """λ from noisy observations, by differentiating through their prediction.

    The noise is Gaussian and independent, and the prior uniform over the box in scaled
    units: in the logarithm on a log axis. Half of the samples are spread over the box.
    From the best of these, Levenberg-Marquardt goes to the maximum of the posterior.
    The other half come from Laplace's Gaussian there, widened, and all are weighted by
    the posterior over the mixture of both (Owen and Zhou 2000, J. Am. Stat. Assoc. 95).

    It can be jitted and vmapped: a hundred cases at once, with `predict` made inside.
    In a loop, it is compiled again only if `predict` has become another program; arrays
    that it closes over may change.

    Args:
        predict: from λ in physical units, shape (p,), to what would be observed there
            without noise: networks of a hypernetwork at some points, or a solver. It
            needs forward-mode derivatives; Diffrax has them with
            `adjoint=diffrax.ForwardMode()`. A prediction that is not finite excludes
            its λ, unless its observation is missing.
        observations: of any shape. NaN stands for one that is missing, and so does what
            is masked in a NumPy masked array: only the others count.
        box: the range of λ, such as a problem's or a model's `parameters`; fixed
            parameters stay fixed.
        noise: its standard deviation, one for all observations or one for each;
            infinite for one that is not to count. If None, it is the same for all and
            not known, with the prior 1 / noise.
        samples: how many predictions to make, apart from those of the search. Only a
            few are made at the same time if there are many observations.

    Returns:
        A `Posterior`.

    Raises:
        ValueError: observations that are infinite, all missing, or of another shape
            than the predictions; noise that is not positive, or does not broadcast to
            them; unknown noise with no more observations than parameters (an interval
            of NaN, where JAX traces them); a box without a free parameter; predictions
            that are complex, or none that is finite.

    Warns:
        UserWarning: the best λ lies on an end of its range, and the observations want
            it beyond; they miss the best prediction by far more than the noise; or the
            weight is on very few samples. Nothing is said where JAX traces.

    >>> t = jnp.linspace(0, 1, 20)
    >>> box = Box(rate=(0.1, 10, "log"))
    >>> seen = jnp.exp(-2 * t) + 0.02 * jnp.sin(99 * t)
    >>> found = infer(lambda lam: jnp.exp(-lam * t), seen, box, noise=0.02)
    >>> low, high = found.interval(0.9)
    >>> print(found.lam.round(1), (low < 2) & (2 < high))
    [2.] [ True]
    """
    free = len(_free(box))
    if not free:
        raise ValueError(f"box = {box}, expected one with a free parameter")
    kind = jnp.result_type(float)
    seen = _numbers("observations", observations, np.nan)
    prediction, arrays = read(predict, jnp.zeros(len(box), kind))
    if seen.shape != prediction.shape:
        raise ValueError(
            f"observations has shape {seen.shape}, expected that of predict(lam), "
            f"{prediction.shape}"
        )
    known = None if noise is None else _numbers("noise", noise, np.inf)
    _look_at(seen, known, noise, free)
    found, fit = _compiled(prediction, box, samples)(arrays, seen, known)
    if not isinstance(found.weights, jax.core.Tracer):
        if not jnp.isfinite(found.weights).all():
            raise ValueError(
                f"predict = {predict!r} gives no finite numbers, expected some in {box}"
            )
        warn(found, box, fit, known is not None)
    return found


def _free(box: Box) -> np.ndarray:
    """Which parameters are not fixed."""
    return np.flatnonzero(np.array(box.low) < np.array(box.high))


def _numbers(name: str, value: Any, missing: float) -> Array:
    """An array, with a number of that kind in place of what is masked."""
    if isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "fiu":
        value = np.ma.filled(value.astype(np.float64), missing)
    return checks.array(name, value, "...").astype(jnp.result_type(float))


def _present(seen: Any, noise: Any) -> Any:
    """Which observations count; the arrays of NumPy or JAX, of the same shape."""
    present = seen == seen  # What is not NaN.
    return present if noise is None else present & (noise != np.inf)


def _look_at(seen: Array, noise: Array | None, given: Any, free: int) -> None:
    """Checks the observations and their noise; what JAX traces, for its shape only."""
    if noise is not None:
        try:
            fits = jnp.broadcast_shapes(noise.shape, seen.shape) == seen.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"noise has shape {noise.shape}, expected one number, or the shape of "
                f"the observations, {seen.shape}"
            )
    if isinstance(seen, jax.core.Tracer):
        return
    # With NumPy: where JAX traces something else, it would trace this too.
    y = np.asarray(seen)
    infinite = np.argwhere(np.isinf(y))
    if len(infinite):
        at = tuple(infinite[0].tolist())
        raise ValueError(
            f"observations holds {y[at]} at {at}, expected finite numbers, or NaN for "
            "one that is missing"
        )
    if isinstance(noise, jax.core.Tracer):
        return
    each = None if noise is None else np.broadcast_to(np.asarray(noise), y.shape)
    if each is not None and not (np.isnan(y) | (each > 0)).all():
        raise ValueError(f"noise = {given!r}, expected numbers above 0")
    count = int(_present(y, each).sum())
    if noise is None and count <= free:
        raise ValueError(
            f"noise = None with {count} observations, expected a number, or more "
            f"observations than the {free} free parameters"
        )
    if not count:
        raise ValueError(
            f"observations, of shape {seen.shape}, are all missing or of infinite "
            "noise, expected at least one that counts"
        )


@functools.lru_cache(maxsize=32)
def _compiled(prediction: Prediction, box: Box, samples: int) -> Callable:
    return jax.jit(functools.partial(_infer, prediction, box, samples))


def _infer(
    predict: Prediction,
    box: Box,
    samples: int,
    arrays: list[Array],
    seen: Array,
    noise: Array | None,
) -> tuple[Posterior, Fit]:
    free, p, kind = _free(box), len(box), seen.dtype
    d, periodic = len(free), np.array(box.periodic)[free]
    each = None if noise is None else jnp.broadcast_to(noise, seen.shape)
    present = _present(seen, each)
    count = jnp.sum(present).astype(kind)
    target = jnp.where(present, seen, 0)
    # If the noise is not known, in units of the observations: squares neither overflow
    # nor vanish.
    largest = jnp.max(jnp.abs(target))
    unit = jnp.where(largest > 0, largest, 1)
    units = jnp.where(present, unit if each is None else each, 1)

    def physical(z: Array) -> Array:
        return box.unscale(jnp.zeros((*z.shape[:-1], p), kind).at[..., free].set(z))

    def residuals(z: Array) -> Array:
        gap = predict(arrays, physical(z)) - target
        return (jnp.where(present, gap, 0) / units).ravel()

    def misfit(z: Array) -> Array:
        total = jnp.sum(residuals(z) ** 2)
        return jnp.where(jnp.isfinite(total), total, jnp.inf)

    # Traced once for both halves of the samples.
    @jax.jit
    def all_misfits(z: Array) -> Array:
        return _in_blocks(misfit, z, max(1, _BLOCK // seen.size))

    # What cannot leave the range.
    def inside(w: Array) -> Array:
        return jnp.where(periodic, (w + 1) % 2 - 1, jnp.sin(w))

    spread = jnp.asarray(2 * lattice(samples // 2, d) - 1, kind)
    misfits = all_misfits(spread)
    start, best = spread[jnp.argmin(misfits)], jnp.min(misfits)
    # Where the fit is perfect, what is left is rounding.
    rounding = jnp.finfo(kind).eps * jnp.maximum(jnp.max(jnp.abs(target / units)), 1)
    floor = jnp.maximum(count, 1) * rounding**2
    # The search wants residuals of about 1.
    size = jnp.sqrt((best + floor) / jnp.maximum(count, 1))
    tolerance = float(jnp.finfo(kind).eps) ** 0.5

    # All derivatives at once: of predictions in float64, Optimistix must not hold any
    # where JAX's own precision is float32.
    @jax.custom_jvp
    def scaled(w: Array) -> Array:
        return residuals(inside(w)) / size

    @scaled.defjvp
    def _(w: tuple[Array], tangent: tuple[Array]) -> tuple[Array, Array]:
        J = jax.jacfwd(lambda w: residuals(inside(w)))(*w) / size
        return scaled(*w), jax.lax.dot(J, *tangent)

    solution: optx.Solution = optx.least_squares(
        lambda w, _: scaled(w),
        optx.LevenbergMarquardt(tolerance, tolerance),
        jnp.where(periodic, start, jnp.arcsin(start)),
        max_steps=64,
        throw=False,
    )
    z = inside(solution.value)

    r, J, deviation = residuals(z), jax.jacfwd(residuals)(z), jnp.ones((), kind)
    if noise is None:
        deviation = jnp.sqrt((jnp.sum(r**2) + floor) / (count - d))
        deviation = jnp.where(count > d, deviation, jnp.nan)
    r, J = r / deviation, J / deviation
    covariance = jnp.linalg.inv(J.T @ J + _PRIOR * jnp.eye(d, dtype=kind))

    # A circle is seen from z, and has no outside.
    middle = jnp.where(periodic, z, 0.0)[None]
    around = z[None] + (spread - z[None] + 1) % 2 - 1
    spread = jnp.where(periodic[None], around, spread)
    root = _WIDER * jnp.linalg.cholesky(covariance)
    normal = jnp.asarray(ndtri(lattice(samples - samples // 2, d)), kind)
    near = z[None] + normal @ root.T
    outside = jnp.any(jnp.abs(near - middle) > 1, axis=1)
    near = jnp.clip(near, middle - 1, middle + 1)
    near_misfits = jnp.where(outside, jnp.inf, all_misfits(near))

    points, misfits = jnp.vstack([spread, near]), jnp.append(misfits, near_misfits)
    # With unknown noise integrated out, the likelihood is a power of the misfit.
    power = -count / 2 * jnp.log(misfits + floor)
    likelihood = power if noise is None else -misfits / 2
    normal = jax.scipy.linalg.solve_triangular(root, (points - z[None]).T, lower=True)
    peak = -jnp.sum(jnp.log(jnp.diag(root))) - d / 2 * float(np.log(2 * np.pi))
    proposal = jnp.logaddexp(
        -d * float(np.log(2)), peak - jnp.sum(normal**2, axis=0) / 2
    )
    weights = jax.nn.softmax(likelihood - proposal)
    whole = jnp.zeros((p, p), kind).at[np.ix_(free, free)].set(covariance)
    given = deviation * unit if noise is None else noise
    # Rounding must not leave the range.
    low = jnp.asarray(np.where(box.periodic, -np.inf, box.low), kind)
    high = jnp.asarray(np.where(box.periodic, np.inf, box.high), kind)
    lams = jnp.clip(physical(jnp.vstack([z[None], points])), low[None], high[None])
    found = Posterior(lams[0], whole, lams[1:], weights, given)
    return found, Fit(z, jnp.sum(r**2), -J.T @ r, J.T @ J, count)


def _in_blocks(f: Callable[[Array], Array], x: Array, size: int) -> Array:
    """`jax.vmap(f)(x)`, at most `size` of them at the same time."""
    n = len(x)
    blocks = -(-n // size)
    if blocks == 1:
        return jax.vmap(f)(x)
    each = -(-n // blocks)
    padded = jnp.pad(x, ((0, blocks * each - n), (0, 0)), mode="edge")
    return jax.lax.map(jax.vmap(f), padded.reshape(blocks, each, -1)).ravel()[:n]
