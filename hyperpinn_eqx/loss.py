"""What an optimiser minimises: named terms, and where they come from."""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._arguments import ArrayLike, Finite, checked
from ._blocks import each_lam


class Loss(eqx.Module):
    """A loss as named parts, one or more; training minimises their sum, `total`.

    >>> print(Loss({"data": jnp.array(1.0), "physics": jnp.array(2.0)}).total)
    3.0
    """

    terms: dict[str, Float[Array, ""]]

    @checked
    def __init__(self, terms: Mapping[str, Float[ArrayLike, ""]]):
        if not terms:
            raise ValueError("terms = {}, expected one part or more")
        self.terms = dict(terms)

    @property
    def total(self) -> Float[Array, ""]:
        """The sum of all terms."""
        return jnp.sum(jnp.stack(list(self.terms.values())))


class Batch(eqx.Module):
    """What one step of training sees.

    Attributes:
        lam: M values of λ, shape (M, p), physical units.
        items: by the name of a term where its residuals are taken: a PyTree of arrays
            that start with shape (M, n), n items for each λ.

    Raises:
        ValueError: items of other shapes.
    """

    lam: Float[Array, "M p"]
    items: dict[str, PyTree]

    @checked
    def __init__(
        self, lam: Finite[Float[ArrayLike, "M p"]], items: Mapping[str, PyTree]
    ):
        self.lam = lam
        self.items = jax.tree.map(jnp.asarray, dict(items))
        for name, part in self.items.items():
            starts = {leaf.shape[:2] for leaf in jax.tree.leaves(part)}
            wanted = {(len(self.lam), start[1]) for start in starts if len(start) > 1}
            if len(starts) != 1 or starts != wanted:
                raise ValueError(
                    f"items[{name!r}] has shapes that start with {sorted(starts)}, "
                    f"expected ({len(self.lam)}, n): n items for each λ"
                )


class Term(eqx.Module):
    """One term of a least-squares loss: a weight times a mean of squares.

    Attributes:
        residuals: from a network, one λ of shape (p,) and n items to n residuals, or
            to n rows of residuals.
        weight: of the mean of their squares.
    """

    residuals: Callable[[Any, Float[Array, " p"], PyTree], Float[Array, " n *k"]]
    weight: float | Float[Array, ""] = 1.0

    def mean(self, r: Float[Array, " n *k"]) -> Float[Array, ""]:
        """The value of the term for residuals r, in their precision."""
        return jnp.asarray(self.weight, r.dtype) * jnp.mean(r**2)

    def rows(self, r: Float[Array, " m *k"], n: int) -> Float[Array, " mk"]:
        """What is squared for the residuals of m out of n items.

        The squares of the rows of all items add up to the value of the term.
        """
        scale = jnp.asarray(self.weight, r.dtype) / (n * (r.size // len(r)))
        return jnp.sqrt(scale) * r.ravel()


class AbstractLeastSquares(eqx.Module):
    """A loss that is a sum of mean squares of residuals, for any optimiser.

    `fit` takes its value, and `gauss_newton` the residuals themselves. A loss of your
    own says what its terms are, and how a batch is drawn.

    >>> class Line(AbstractLeastSquares):
    ...     @property
    ...     def terms(self):
    ...         return {
    ...             "data": Term(lambda net, lam, x: jax.vmap(net)(x) - lam * x[:, 0])
    ...         }
    ...
    ...     def sample(self, model, *, key):
    ...         lam = jnp.ones((2, 1))
    ...         return Batch(lam, {"data": jax.random.uniform(key, (2, 5, 1))})
    >>> loss = Line()
    >>> batch = loss.sample(None, key=jax.random.key(0))
    >>> print(loss(lambda lam: lambda x: lam[0] * x[0] + 2, batch).terms["data"])
    4.0
    """

    @property
    @abc.abstractmethod
    def terms(self) -> Mapping[str, Term]:
        """The terms by name; a batch without items of that name leaves one out."""

    @abc.abstractmethod
    def sample(self, model: Any, *, key: PRNGKeyArray) -> Batch:
        """A new batch, which may depend on the model."""

    def __call__(self, model: Any, batch: Batch) -> Loss:
        """The terms of a batch: each a mean over λ, and over the items of each.

        The network of each λ is made once.
        """
        terms = self.terms_of(batch.items)

        def one(lam: Array, items: dict[str, PyTree]) -> dict[str, Array]:
            net = model(lam)
            return {
                name: term.mean(term.residuals(net, lam, items[name]))
                for name, term in terms.items()
            }

        items = {name: batch.items[name] for name in terms}
        size = sum(jax.tree.leaves(part)[0].shape[1] for part in items.values())
        found = each_lam(one, batch.lam, items, size)
        # JAX sorts dictionaries.
        return Loss({name: jnp.mean(found[name]) for name in terms})

    def terms_of(self, items: Mapping[str, PyTree]) -> dict[str, Term]:
        """The terms that there are items for, be they of a whole batch or of one λ.

        Raises:
            ValueError: there is none, or items that no term is for.
        """
        terms = dict(self.terms)
        if unknown := items.keys() - terms.keys():
            raise ValueError(
                f"batch has items {sorted(unknown)}, expected some of {list(terms)}"
            )
        empty = {name for name, part in items.items() if _is_empty(part)}
        found = {n: t for n, t in terms.items() if n in items and n not in empty}
        if not found:
            raise ValueError(f"batch has no items, expected some of {list(terms)}")
        return found


def _is_empty(items: PyTree) -> bool:
    return not jax.tree.leaves(items)[0].size
