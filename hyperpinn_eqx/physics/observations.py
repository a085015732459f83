"""Measured values of the solution, as one more term of a loss."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._arguments import ArrayLike, Finite, above, array, checked, choice
from ..networks.jets import jets
from ..problems.base import AbstractPDE


class Seen(eqx.Module):
    """Observations at one point: values, and what each of them counts."""

    point: Float[Array, "*n d"]
    value: Float[Array, "*n k"]
    weight: Float[Array, "*n k"]


class Observations(eqx.Module):
    """What has been observed of solutions at some λ: values of fields at points.

    Args:
        lam: M values of λ, shape (M, p), physical units.
        points: N points for each, shape (M, N, d).
        values: what was seen there, shape (M, N), or (M, N, k) for k fields. NaN stands
            for what is missing.
        sigma: standard deviations of the noise, broadcasting to the values. They weigh
            the observations against each other.
        fields: the names of the fields observed; by default all of the problem's.

    Raises:
        ValueError: numbers of λ, points, values and fields that do not fit, or nothing
            that was seen.
    """

    lam: Float[Array, "M p"]
    points: Float[Array, "M N d"]
    values: Float[Array, "M N k"]
    weights: Float[Array, "M N k"]
    fields: tuple[str, ...] | None = eqx.field(static=True)

    @checked
    def __init__(
        self,
        lam: Finite[Float[ArrayLike, "M p"]],
        points: Finite[Float[ArrayLike, "M N d"]],
        values: Float[ArrayLike, "M N *k"],
        sigma: Float[ArrayLike, "..."] = 1.0,
        *,
        fields: Sequence[str] | None = None,
    ):
        values = values[..., None] if values.ndim == 2 else values
        sigma = array("sigma", sigma, "...", finite=True, bounds=[above(0)])
        sigma = sigma[..., None] if sigma.ndim == 2 and values.shape[-1] == 1 else sigma
        k = values.shape[-1]
        if values.ndim != 3 or (fields is not None and len(fields) != k):
            raise ValueError(
                f"values has shape {values.shape}, expected (M, N, k) for k fields, "
                f"here {fields}"
            )
        there = jnp.isfinite(values)
        if not jnp.any(there):
            raise ValueError("values are all missing, expected some that are not")
        # Of mean square 1, so that the noise as a whole has no unit.
        weights = jnp.where(there, 1 / sigma.astype(values.dtype), 0.0)
        size = jnp.sqrt(jnp.mean(weights**2) / jnp.mean(there.astype(values.dtype)))
        self.lam, self.points = lam, points
        self.values, self.weights = jnp.where(there, values, 0.0), weights / size
        self.fields = None if fields is None else tuple(fields)

    def columns(self, problem: AbstractPDE) -> list[int]:
        """Which of a problem's fields have been observed.

        Raises:
            ValueError: the problem has other fields, parameters or coordinates.
        """
        names = tuple(problem.fields) if self.fields is None else self.fields
        for name in names:
            choice("a field of observations", name, problem.fields)
        shape = (len(problem.parameters), len(problem.domain), len(names))
        found = (self.lam.shape[1], self.points.shape[2], self.values.shape[2])
        if found != shape:
            raise ValueError(
                f"observations have {found} parameters, coordinates and fields, "
                f"expected {shape} for {problem}"
            )
        return [problem.fields.index(name) for name in names]

    def among(self, n: int) -> Seen:
        """Those of each λ, after n λ without any; the mean over all λ is that of these.

        Returns:
            Arrays that start with shape (n + M, N).
        """
        m = len(self.lam)
        share = ((n + m) / m) ** 0.5

        def after(rows: Array) -> Array:
            first = jnp.broadcast_to(rows[:1], (n, *rows.shape[1:]))
            return jnp.concatenate([first, rows])

        counts = np.append(np.zeros(n), np.full(m, share))[:, None, None]
        weights = jnp.asarray(counts, self.weights.dtype) * after(self.weights)
        return Seen(after(self.points), after(self.values), weights)


def gaps(
    problem: AbstractPDE,
    columns: Sequence[int],
    net: Callable[[Array], Array],
    seen: Seen,
) -> Float[Array, "n k"]:
    """How far a network is from what was seen at n points."""
    u = jets(net, seen.point, (), problem.domain.names).value
    u = u.reshape(len(u), len(problem.fields))[:, list(columns)]
    return (u - seen.value.astype(u.dtype)) * seen.weight.astype(u.dtype)
