"""Differential equations solved by Diffrax: what is asked, and how it ended."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array, ArrayLike, Bool, Float, Float64, PyTree

from .multistep import Field

# From λ, shape (p,), to its vector field: a problem or a model.
Family = Callable[[Array], Field]

# A field that blows up, or ends, stops where no step is small enough.
_SMALLEST = 1e-12
# How a solution ended, as Diffrax names it, in words; any other did not finish.
_WORDS = {
    "nonfinite": "became infinite or NaN",
    "dt_min_reached": f"no step was small enough ({_SMALLEST:g})",
    "max_steps_reached": "needed more than {} steps",
}


def times(duration: float, dt: float, least: int) -> Float64[np.ndarray, " T"]:
    """The times of saved states.

    Raises:
        ValueError: fewer steps than that, or more than 1e9.
    """
    if not least * dt <= duration < 1e9 * dt:
        raise ValueError(
            f"duration = {duration} and dt = {dt}, expected a duration of {least} to "
            "1e9 times dt"
        )
    return dt * np.arange(round(duration / dt) + 1)


def check_family(
    name: str,
    family: Family,
    lam: Float[ArrayLike, " p"],
    states: str,
    x: Float[ArrayLike, " d"],
) -> None:
    """Checks that a family makes a vector field of this λ on the named states.

    Raises:
        ValueError: it does not.
    """
    wanted = f"expected for lam of shape {np.shape(lam)} a field on states of shape "
    wanted += f"{np.shape(x)}, those of {states}"
    try:
        slope = jax.eval_shape(lambda lam, x: field_of(family, lam)(x), lam, x)
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{name} = {family!r}, {wanted}: {error}") from error
    if slope.shape != np.shape(x):
        raise ValueError(f"{name}(lam)(x) has shape {slope.shape}, {wanted}")


def field_of(family: Family, lam: Float[Array, " p"]) -> Field:
    """The field of a λ, with slopes in the precision of the states.

    A slope may be a list of numbers, or a scalar, as of a network with one output.
    """
    field = family(lam)
    return lambda x: jnp.atleast_1d(jnp.asarray(field(x), x.dtype))


class Program(eqx.Module):
    """A function of (λ, state) as it was when it was traced, and the arrays it read.

    To trace a solver takes a second, to trace a field milliseconds. So the field is
    traced at every call, and the solver only for a program that it has not seen.

    Attributes:
        arrays: what the function read.
        code: the rest. Equal programs have equal code.
    """

    arrays: list[Array]
    code: "_Code" = eqx.field(static=True)

    def __init__(
        self, make: Callable[[Family], Callable], family: Family, lam: Array, x: Array
    ):
        arrays, rest = eqx.partition(family, eqx.is_array)

        def flat(arrays: PyTree, lam: Array, x: Array) -> PyTree:
            return make(eqx.combine(arrays, rest))(lam, x)

        jaxpr, shape = jax.make_jaxpr(flat, return_shape=True)(arrays, lam, x)
        self.arrays = [*jaxpr.consts, *jax.tree.leaves(arrays)]
        self.code = _Code(jaxpr.jaxpr, jax.tree.structure(shape))

    def __call__(self, lam: Array, x: Array) -> PyTree:
        return self.code(self.arrays, lam, x)

    def run(self, solver: Callable, *args: Any) -> PyTree:
        """`solver(self, *args)`, compiled once for all equal programs."""
        return _compiled(solver, self.code)(self, *args)


class _Code:
    def __init__(self, jaxpr: Any, structure: Any):
        self.jaxpr, self.structure = jaxpr, structure
        # Unlike a jaxpr in print, this shows every digit of a number.
        shapes = [
            jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
            for v in (*jaxpr.constvars, *jaxpr.invars)
        ]
        text = jax.jit(lambda *leaves: self._flat(leaves)).lower(*shapes).as_text()
        # What a program calls back is not in its text: such a one equals itself alone.
        own = self.jaxpr if "callback" in text else None
        self._key = hashlib.sha256(text.encode()).digest(), structure, id(own)

    def _flat(self, leaves: Any) -> list[Array]:
        n = len(self.jaxpr.constvars)
        return jaxpr_as_fun(ClosedJaxpr(self.jaxpr, leaves[:n]))(*leaves[n:])

    def __call__(self, arrays: list[Array], lam: Array, x: Array) -> PyTree:
        return jax.tree.unflatten(self.structure, self._flat([*arrays, lam, x]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Code) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@functools.lru_cache(16)
def _compiled(solver: Callable, code: _Code) -> Callable:
    # A function of its own, so that JAX forgets it when this cache does.
    return eqx.filter_jit(functools.partial(solver))


# Without Diffrax's own cache, which would keep every field for ever.
_solve = dfx.diffeqsolve.__wrapped__  # type: ignore[attr-defined]


def solve(
    slope: Callable[[PyTree], PyTree],
    start: PyTree,
    t: Float[Array, " T"],
    rtol: Float[Array, ""],
    *,
    solver: dfx.AbstractAdaptiveSolver,
    max_steps: int,
) -> tuple[PyTree, dfx.RESULTS]:
    """One solution dy/dt = slope(y) at times t, and how it ended: see `reasons`.

    Diffrax does not tell what became infinite or NaN from what needs ever smaller
    steps; this does.
    """
    solution = _solve(
        dfx.ODETerm(lambda t, y, args: slope(y)),
        solver,
        t0=0.0,
        t1=t[-1],
        dt0=None,
        y0=start,
        saveat=dfx.SaveAt(subs=[dfx.SubSaveAt(ts=t), dfx.SubSaveAt(t1=True)]),
        stepsize_controller=dfx.PIDController(
            rtol=rtol, atol=rtol, dtmin=_SMALLEST, force_dtmin=False
        ),
        max_steps=max_steps,
        # One solution that fails is a result; the others go on.
        throw=False,
    )
    states, last = solution.ys
    y = jax.tree.map(lambda a: a[0], last)
    ahead = jax.tree.map(lambda y, s: y + 10 * _SMALLEST * s, y, slope(y))
    fine = solution.result == dfx.RESULTS.successful
    # Where it stopped, or within the reach of the steps that were refused.
    there = _finite(y) & _finite(slope(y)) & _finite(slope(ahead))
    broken = jnp.where(fine, ~_finite(states), ~there)
    return states, dfx.RESULTS.where(broken, dfx.RESULTS.nonfinite, solution.result)


def _finite(tree: PyTree) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)]))


def ends(value: Any) -> dfx.RESULTS:
    """How solutions ended; for booleans, whether they finished."""
    if isinstance(value, dfx.RESULTS):
        return value
    finished = value if isinstance(value, Array) else np.asarray(value)
    if finished.dtype != bool:
        raise ValueError(f"result = {value!r}, expected diffrax.RESULTS, or booleans")
    both = (dfx.RESULTS.successful, dfx.RESULTS.internal_error)
    return jax.tree.map(lambda yes, no: jnp.where(finished, yes, no), *both)


def check_ends(finished: Bool[ArrayLike, "..."], states: ArrayLike) -> None:
    """Checks that there is one end for each solution, and finished ones are finite.

    Raises:
        ValueError: they are not.
    """
    shape = np.shape(states)[:-2]
    if np.shape(finished) != shape:
        raise ValueError(f"result has shape {np.shape(finished)}, expected {shape}")
    if any(isinstance(a, jax.core.Tracer) for a in (finished, states)):
        return
    states = np.asarray(states)
    bad = np.argwhere(np.asarray(finished)[..., None, None] & ~np.isfinite(states))
    if len(bad):
        at = tuple(bad[0].tolist())
        raise ValueError(
            f"states holds {states[at]} at {at}, expected finite numbers in what "
            "finished"
        )


def reasons(
    result: dfx.RESULTS, states: Float[ArrayLike, "..."], dt: float, max_steps: int
) -> np.ndarray:
    """Why each solution ended too early, in words; "" for one that did not."""
    finite = np.isfinite(np.asarray(states)).all(-1)
    # Of those before the first that is not finite.
    last = np.maximum(np.cumprod(finite, axis=-1).sum(-1) - 1, 0)
    words = np.full(last.shape, "did not finish", object)
    for name, word in _WORDS.items():
        words[np.asarray(result == getattr(dfx.RESULTS, name))] = word.format(max_steps)
    reasons = [
        f"{w}, last state at t = {dt * i:g}"
        for w, i in zip(words.flat, last.flat, strict=True)
    ]
    finished = np.asarray(result == dfx.RESULTS.successful)
    return np.where(finished, "", np.reshape(reasons, last.shape))
