"""A family in units of its own: coordinates, u and residual all of order one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .._arguments import Positive, checked
from ..box import Box
from ..networks.jets import Jet
from ..problems.base import AbstractPDE, has_ends, unpack
from .sampling import lattice

_PLACES = 256


class Dimensionless(AbstractPDE):
    """The same family for u* = (u - mean) / half over coordinates from 0 to 1.

    The residual is divided by its own size. In other units of the coordinates, of u, or
    of the equation, all of it is the same, and so is whatever is trained on it.

    Attributes:
        problem: the family in the units of its author.
        mean: the u that becomes 0.
        half: how far u is from that, typically.
        size: of the residual where u, and each of its terms' derivatives, is typical.
    """

    problem: AbstractPDE
    mean: float
    half: float
    size: float

    def _check_says_nothing(self, name: str, place: str) -> None:
        """It says what the problem says, which has been checked."""

    @property
    def domain(self) -> Box:  # type: ignore[override]
        box = self.problem.domain
        ranges = {}
        for name, (low, high, *kind) in box.ranges().items():
            begin, end = (1.0, high / low) if kind == ["log"] else (0.0, 1.0)
            ranges[name] = (begin, end if low < high else begin, *kind)
        return Box(**ranges)

    @property
    def parameters(self) -> Box:  # type: ignore[override]
        return self.problem.parameters

    @property
    def derivatives(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.problem.derivatives

    @property
    def outputs(self) -> Box:
        """The range of u for a network whose outputs are u*."""
        return Box(u=(self.mean - self.half, self.mean + self.half))

    def residual(
        self, u: Jet, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        lengths = _lengths(self.problem.domain)
        jet = Jet(
            self.mean + self.half * u.value,
            {
                word: u.derivatives[word] * (self.half / _product(lengths, word))
                for word in self.derivatives
            },
        )
        return self.problem.residual(jet, self._physical(tx), lam) / self.size

    def initial(
        self, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        return (self.problem.initial(self._physical(tx), lam) - self.mean) / self.half

    def boundary(
        self, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Float[Array, ""]:
        value = self.problem.boundary(self._physical(tx), lam)
        return (value - self.mean) / self.half

    def _physical(self, tx: Float[Array, " d"]) -> Float[Array, " d"]:
        box = self.problem.domain
        box.check_resolved(tx.dtype)
        zero = [0.0 if log else low for low, log in zip(box.low, box.log, strict=True)]
        length = list(_lengths(box).values())
        return jnp.asarray(zero, tx.dtype) + jnp.asarray(length, tx.dtype) * tx


@checked
def dimensionless(problem: AbstractPDE, scale: Positive | None = None) -> Dimensionless:
    """A family in units of its own, found from what its author says.

    The mean of u and its range are those of the initial and boundary values. Where
    these are all the same, or the equation has a source that makes more of u, u is as
    large as the derivatives that balance the source. The size of a residual is the root
    of the sum of squares of its terms, each with u and its derivatives at half a range
    over a range of the coordinate; of all places, λ and values, the median.

    Args:
        problem: the family.
        scale: how far u is from the mean of these values, typically, if its author
            knows better.

    Raises:
        ValueError: neither conditions nor equation tell how large u is, or what the
            equation says is nowhere finite.
    """
    # Whatever the caller's precision, and also where only shapes are asked for.
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        return _dimensionless(problem, scale)


def _dimensionless(problem: AbstractPDE, scale: float | None) -> Dimensionless:
    box, words = problem.domain, tuple(problem.derivatives)
    d, p = len(box), len(problem.parameters)
    signs = 2 * jnp.asarray(lattice(_PLACES // 2, d + p + 1 + len(words))) - 1
    signs = jnp.concatenate([signs, -signs])
    points = box.unscale(signs[:, :d])
    lams = unpack(problem.parameters, problem.parameters.unscale(signs[:, d : d + p]))
    known = _known(problem, points, lams)
    known = known if known.size else np.zeros(1)
    mean, half = float(np.mean(known)), float(np.ptp(known)) / 2
    # The same value everywhere, but for rounding, has no range.
    half = half if half > 1e-12 * abs(mean) else 0.0
    lengths = _lengths(box)
    units = np.array([1.0, *(1 / _product(lengths, word) for word in words)])
    values = signs[:, d + p :]
    rest = jnp.zeros_like(values).at[:, 0].set(mean)

    def residual(channels: Array, point: Array, lam: Array) -> Array:
        jet = Jet(channels[0], dict(zip(words, channels[1:], strict=True)))
        return jnp.asarray(problem.residual(jet, point, lam), float).reshape(())

    def slope(half: float) -> float:
        """The size of the residual's derivatives, u being so far from the mean."""
        channels = rest + half * values * jnp.asarray(units)[None]
        grads = jax.vmap(jax.grad(residual))(channels, points, lams)
        found = np.sqrt(np.sum((np.asarray(grads) * units) ** 2, axis=1))
        return _typical(np.median, found)

    at_rest = np.asarray(jax.vmap(residual)(rest, points, lams))
    source = _typical(lambda r: np.sqrt(np.mean(r**2)), at_rest)
    if scale is not None:
        half = scale
    elif source > 0 and (steep := slope(half)) > 0:
        half = max(half, source / steep)
    half = half or abs(mean)
    if half == 0:
        raise ValueError(
            f"scale = None, expected a number: neither the conditions of {problem} nor "
            "its residual at u = 0 tell how large u is"
        )
    size = half * slope(half)
    if not 0 < size < np.inf:
        raise ValueError(
            f"problem.residual of {problem} changes by {size} with u and its "
            "derivatives, expected a positive and finite number"
        )
    return Dimensionless(problem, mean, half, size)


def _known(
    problem: AbstractPDE, points: Float[Array, "n d"], lams: Array
) -> Float64[np.ndarray, " k"]:
    """What u is at points of the initial time and of all walls."""
    box, found = problem.domain, []
    for time, ask in ((True, problem.initial), (False, problem.boundary)):
        for axis in np.flatnonzero(has_ends(box, time=time)):
            for end in (box.low, box.high)[: 1 if time else 2]:
                at = points.at[:, axis].set(end[axis])
                found.append(np.asarray(jax.vmap(ask)(at, lams), float).ravel())
    values = np.concatenate(found) if found else np.zeros(0)
    return values[np.isfinite(values)]


def _typical(average: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> float:
    """An average of what is finite; 0 if nothing is."""
    finite = values[np.isfinite(values)]
    return float(average(finite)) if finite.size else 0.0


def _lengths(box: Box) -> dict[str, float]:
    """The unit of each coordinate: its range, or on a log axis its low end."""
    rows = zip(box.names, box.low, box.high, box.log, strict=True)
    return {name: low if log else (high - low) or 1.0 for name, low, high, log in rows}


def _product(lengths: dict[str, float], word: str) -> float:
    return float(np.prod([lengths[letter] for letter in word]))
