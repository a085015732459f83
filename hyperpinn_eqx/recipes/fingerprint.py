"""What a family of equations is, in short texts that two processes can compare."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..networks.jets import Jet
from ..problems.base import AbstractPDE


def fingerprint(problem: AbstractPDE) -> dict[str, Any]:
    """Tells a problem from every other, by what its methods compute now.

    Class attributes, outer variables and tables that they read are part of it. The
    same class in another process has the same fingerprint, under the same version of
    JAX.

    >>> from hyperpinn_eqx import AllenCahn
    >>> fingerprint(AllenCahn())["derivatives"]
    ['t', 'xx']
    """
    point = jax.ShapeDtypeStruct((len(problem.domain),), jnp.result_type(float))
    number = jax.ShapeDtypeStruct((), point.dtype)
    p = len(problem.parameters)
    lam = number if p == 1 else jax.ShapeDtypeStruct((p,), point.dtype)

    def residual(value: Any, slopes: list, tx: Any, lam: Any) -> Any:
        # In the order of `derivatives`: JAX would sort a dictionary.
        u = Jet(value, dict(zip(problem.derivatives, slopes, strict=True)))
        return problem.residual(u, tx, lam)

    slopes = [number] * len(problem.derivatives)
    return {
        "class": type(problem).__name__,
        # As text, in which the order of coordinates counts.
        "domain": str(problem.domain),
        "parameters": str(problem.parameters),
        "derivatives": [*problem.derivatives],
        "residual": _computed(residual, number, slopes, point, lam),
        "initial": _computed(problem.initial, point, lam),
        "boundary": _computed(problem.boundary, point, lam),
    }


def _computed(function: Callable, *shapes: Any) -> str:
    """A hash of the program that JAX makes of a function."""
    try:
        traced = jax.make_jaxpr(function)(*shapes)
    except Exception as error:
        # Of conditions that are never asked for. Of others a training will tell.
        return type(error).__name__

    def program(consts: list, *args: Any) -> Any:
        return jax.core.eval_jaxpr(traced.jaxpr, consts, *args)

    # For one kind of device, whatever the training runs on.
    lowered = (
        jax.jit(program)
        .trace(traced.consts, *jax.tree.leaves(shapes))
        .lower(lowering_platforms=("cpu",))
    )
    found = hashlib.sha256(lowered.as_text().encode())
    for const in traced.consts:
        value = jnp.asarray(const)
        found.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
    return found.hexdigest()[:16]
