"""Validation of models and losses before and during a training."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _arguments as checks
from ..loss import Loss
from ..networks.model import dtype_of

Model = TypeVar("Model")


def trainable(name: str, model: Model) -> Model:
    """A model with weights that can be trained: JAX arrays, finite, and of one type.

    Raises:
        ValueError: it has no weights, or none such; the message has the argument's
            `name`, and that of the array.
    """
    params, static = eqx.partition(model, eqx.is_inexact_array)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: checks.array(
            name + jax.tree_util.keystr(path), leaf, "...", finite=True, empty=True
        ),
        params,
    )
    types = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)})
    if len(types) != 1:
        raise ValueError(
            f"{name} has weights of {' and '.join(types) or 'no type'}, expected one "
            "floating-point type for all; see hpx.cast"
        )
    return eqx.combine(params, static)


def check_loss(
    loss: Callable[[Model, PRNGKeyArray], Loss], model: Model, key: PRNGKeyArray
) -> None:
    """Looks at what a loss returns, before anything is compiled.

    Raises:
        TypeError: no `Loss`.
        ValueError: a term in another precision than the weights, or with a name that
            the history has for something else.
    """
    params, static = eqx.partition(model, eqx.is_inexact_array)
    found = eqx.filter_eval_shape(
        lambda params, key: loss(eqx.combine(params, static), key), params, key
    )
    checks.instance("loss(model, key)", found, Loss)
    for name, term in found.terms.items():
        if name in ("step", "seconds", "total"):
            raise ValueError(f"loss has a term {name!r}, expected another name")
        check_type(f"the term {name!r} of loss", term.dtype, model)


def check_type(name: str, found: jnp.dtype, model: object) -> None:
    """Checks that something is computed in the precision of the model's weights.

    Raises:
        ValueError: it is not.
    """
    if found != dtype_of(model):
        raise ValueError(
            f"{name} is {found}, expected {dtype_of(model)} like the weights of model; "
            "hpx.cast changes the type of weights or data"
        )


def largest(params: Any) -> Float[Array, ""]:
    """The largest of all weights by size: not finite if one of them is not."""
    sizes = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(params)]
    return jnp.max(jnp.stack(sizes))


def first_fault(
    terms: dict[str, np.ndarray], weights: np.ndarray, done: int
) -> str | None:
    """What became NaN or infinite first, and at which step; None if nothing did.

    Args:
        terms: every term of the loss at n steps.
        weights: `largest` after each of these steps.
        done: the steps before.
    """
    # In the order in which things come about.
    names = sorted(terms, key=lambda name: name == "total")
    columns = np.stack([*(terms[name] for name in names), weights], axis=1)
    bad = np.argwhere(~np.isfinite(columns))
    if not len(bad):
        return None
    at, column = bad[0]
    value, step = columns[at, column], done + at + 1
    if column == len(names):
        return f"the weights became {value} after step {step}"
    return f"the loss term {names[column]!r} became {value} at step {step}"
