"""What a family of equations is, in short texts that two processes can compare."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..box import Box
from ..problems.base import AbstractPDE
from ..problems.recorded import Channels


def fingerprint(problem: AbstractPDE) -> dict[str, Any]:
    """Tells a problem from every other, by what its methods compute now.

    Class attributes, outer variables and tables that they read are part of it. The
    same class in another process has the same fingerprint, under the same version of
    JAX.

    >>> from hyperpinn_eqx import AllenCahn
    >>> fingerprint(AllenCahn())["conditions"]
    {'start': 't = 0', 'walls': 'x = 0 and x = 10'}
    """
    where = problem.conditions
    return {
        "class": type(problem).__name__,
        # As text, in which the order of coordinates counts.
        "domain": str(problem.domain),
        "parameters": str(problem.parameters),
        "fields": [*problem.fields],
        "conditions": {name: str(place) for name, place in where.items()},
        "programs": {name: _computed(problem, name) for name in ("physics", *where)}
        | _map(problem),
    }


def digest(arrays: PyTree) -> str:
    """A hash of arrays, their types and shapes."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        value = np.asarray(leaf)
        found.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
    return found.hexdigest()[:16]


def _computed(problem: AbstractPDE, name: str) -> str:
    """A hash of what a method uses, and of the program that JAX makes of it."""
    channels = Channels(problem, name)
    point, lam = _inputs(problem)
    values = jax.ShapeDtypeStruct((len(channels.columns),), point.dtype)
    return _hash(channels, (values, point, lam, point), str(channels.columns))


def _map(problem: AbstractPDE) -> dict[str, str]:
    """A hash of the program that makes a domain of a box."""
    if isinstance(problem.domain, Box):
        return {}
    return {"map": program(problem, problem.domain.at)}


def program(problem: AbstractPDE, function: Callable) -> str:
    """A hash of the program that JAX makes of a function of a point and λ."""
    return _hash(function, _inputs(problem))


def _inputs(
    problem: AbstractPDE,
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """What a point and λ look like."""
    kind, p = jnp.result_type(float), len(problem.parameters)
    point = jax.ShapeDtypeStruct((len(problem.domain),), kind)
    return point, jax.ShapeDtypeStruct(() if p == 1 else (p,), kind)


def _hash(function: Callable, shapes: tuple, text: str = "") -> str:
    traced = jax.make_jaxpr(function)(*shapes)

    def program(consts: list, *args: Any) -> Any:
        return jax.core.eval_jaxpr(traced.jaxpr, consts, *args)

    # For one kind of device, whatever the training runs on.
    lowered = (
        jax.jit(program)
        .trace(traced.consts, *shapes)
        .lower(lowering_platforms=("cpu",))
    )
    found = hashlib.sha256(f"{text}{lowered.as_text()}".encode())
    return f"{found.hexdigest()[:16]} {digest(traced.consts)}"
