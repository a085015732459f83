"""The bias of a multistep scheme: taken off a learned field, or put on an exact one."""

import functools

import jax
from jaxtyping import Array, ArrayLike, Float

from .. import _arguments as checks
from .._arguments import Positive, checked
from .multistep import Field, Multistep, slope


@checked
def remove_bias(field: Field, scheme: Multistep, dt: Positive) -> Field:
    """Removes the leading bias of a vector field learned by a multistep scheme.

    A network g that satisfies the scheme exactly is not f but `g = f + c Δt^p x^(p+1)`
    to leading order, with `c = C / Σ β_j`. Along the flow of g, `x^(p+1)` is the p-th
    Lie derivative `D_g^p g`, so that `f ≈ g - c Δt^p D_g^p g`: p nested Jacobian-vector
    products after training, no new data. For the trapezoid rule, this is
    `f ≈ g + Δt²/12 D_g² g`.

    Args:
        field: the learned field g.
        scheme: what it was learned by.
        dt: the time step of its data.

    Returns:
        A field that computes in the precision of g.

    >>> import jax.numpy as jnp
    >>> from hyperpinn_eqx import adams_moulton
    >>> scheme, dt = adams_moulton(1), 0.1
    >>> g = lambda x: 2 / dt * jnp.tanh(dt / 2) * x  # what the rule makes of f(x) = x
    >>> one = jnp.ones(1)
    >>> print((g(one) - 1).round(5), (remove_bias(g, scheme, dt)(one) - 1).round(5))
    [-0.00083] [-0.]
    """
    return _shift(field, scheme, dt, -1.0)


@checked
def add_bias(field: Field, scheme: Multistep, dt: Positive) -> Field:
    """The field `g ≈ f + c Δt^p D_f^p f` that a perfect network would learn of f.

    The inverse of `remove_bias` to leading order, with the same arguments.
    """
    return _shift(field, scheme, dt, 1.0)


def _shift(field: Field, scheme: Multistep, dt: float, sign: float) -> Field:
    scale = sign * scheme.error_constant / float(sum(scheme.beta)) * dt**scheme.order
    first = last = functools.partial(slope, field)
    for _ in range(scheme.order):
        last = functools.partial(_along, first, last)
    return functools.partial(_shifted, first, last, scale)


def _shifted(
    field: Field, last: Field, scale: float, x: Float[ArrayLike, " d"]
) -> Float[Array, " d"]:
    x = checks.array("x", x, "d")
    value = field(x)
    return value + scale * last(x.astype(value.dtype))


def _along(field: Field, f: Field, x: Float[Array, " d"]) -> Float[Array, " d"]:
    """The derivative of f along the flow of a field."""
    return jax.jvp(f, (x,), (field(x),))[1]
