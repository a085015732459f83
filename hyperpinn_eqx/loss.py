"""What an optimiser minimises: named terms, or rows of a least-squares problem."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ._arguments import array, instance


class Loss(eqx.Module):
    """A loss as named parts; training minimises their sum, `total`.

    Raises:
        ValueError: no parts, or one that is not a single real number.
        TypeError: `terms` is no dictionary, or a name no string.

    >>> print(Loss({"data": jnp.array(1.0), "physics": jnp.array(2.0)}).total)
    3.0
    """

    terms: dict[str, Float[Array, ""]]

    def __init__(self, terms: dict[str, Float[ArrayLike, ""]]):
        instance("terms", terms, dict)
        if not terms:
            raise ValueError("terms = {}, expected one part or more")
        for name in terms:
            instance("a name in terms", name, str)
        self.terms = {k: array(f"terms[{k!r}]", v) for k, v in terms.items()}

    @property
    def total(self) -> Float[Array, ""]:
        """The sum of all terms."""
        return jnp.sum(jnp.stack(list(self.terms.values())))


# From (main network, λ, one item) to one residual.
Row = Callable[[Any, Float[Array, " p"], PyTree], Float[Array, ""]]


class AbstractRows(eqx.Module):
    """Rows of several kinds, each at places of its own.

    Where a single function of all items would do one thing at some of them and another
    at others, each of its parts would be evaluated at all of them: an equation also
    where it does not hold.
    """

    @property
    @abc.abstractmethod
    def groups(self) -> tuple[Row, ...]:
        """A function for each kind; a batch's items are a tuple, one for each."""


Rows = Row | AbstractRows


def groups(rows: Rows, items: PyTree) -> list[tuple[Row, PyTree]]:
    """Every kind of row with the items of one λ, but for those that have none."""
    if not isinstance(rows, AbstractRows):
        return [(rows, items)]
    pairs = zip(rows.groups, items, strict=True)
    return [(row, part) for row, part in pairs if len(jax.tree.leaves(part)[0])]
