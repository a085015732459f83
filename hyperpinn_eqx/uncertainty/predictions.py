"""A caller's function of λ as it is now, apart from the arrays that it closes over."""

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun
from jaxtyping import Array, Float

from ..networks.main import precision


class Prediction:
    """What a function of λ computes, from λ and the arrays that it closes over.

    Two are equal if they compute the same, in derivatives too. So whatever is compiled
    for one serves the other, and holds no data.

    Attributes:
        shape: of what it returns.
    """

    shape: tuple[int, ...]

    def __init__(self, jaxpr: Jaxpr, shape: tuple[int, ...]):
        self._jaxpr, self.shape = jaxpr, shape
        self._wide = re.search(r"\b([fiu]64|c128)\[", str(jaxpr)) is not None
        self._key: tuple = ()

    def __call__(self, arrays: list[Array], lam: Float[Array, " p"]) -> Array:
        with self.precision():
            return jaxpr_as_fun(ClosedJaxpr(self._jaxpr, arrays))(lam)[0]

    def precision(self) -> contextlib.AbstractContextManager:
        """Lets JAX transform what computes in float64 somewhere, whatever its mode."""
        return precision(np.dtype(np.float64 if self._wide else np.float32))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prediction) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def read(
    predict: Callable[[Float[Array, " p"]], Array], lam: Float[Array, " p"]
) -> tuple[Prediction, list[Array]]:
    """What a function computes at the moment, and the arrays that it closes over.

    Args:
        predict: from λ to real numbers, in any precision.
        lam: of the shape and precision of those to come; predictions will have the
            same precision.

    Raises:
        ValueError: predictions that are no real numbers.
    """

    def real(lam: Array) -> Array:
        value = jnp.asarray(predict(lam))
        if value.dtype.kind == "c" or value.dtype == bool:
            raise ValueError(
                f"predict = {predict!r} returns {value.dtype}, expected real numbers"
            )
        return jax.lax.convert_element_type(value, lam.dtype)

    jaxpr, out = jax.make_jaxpr(real, return_shape=True)(lam)
    arrays = [jnp.asarray(value) for value in jaxpr.consts]
    prediction = Prediction(jaxpr.jaxpr, out.shape)

    # All that is made of it: many predictions, and derivatives forward.
    def uses(arrays: list[Array], lams: Array, tangent: Array) -> Any:
        def one(lam: Array) -> Any:
            return jax.jvp(functools.partial(prediction, arrays), (lam,), (tangent,))

        return jax.vmap(one)(lams)

    shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in arrays]
    with prediction.precision():
        jitted = jax.jit(uses, keep_unused=True)
        traced = jitted.trace(shapes, jnp.stack([lam, lam]), lam)
        text = hashlib.sha256(traced.lower().as_text().encode()).digest()
    prediction._key = text, *_callbacks(traced.jaxpr)
    return prediction, arrays


def _callbacks(value: Any) -> Iterator[Callable]:
    """The Python functions that a program will call, which its text does not show."""
    if isinstance(value, tuple | list):
        for one in value:
            yield from _callbacks(one)
    elif isinstance(value, ClosedJaxpr):
        yield from _callbacks(value.jaxpr)
    elif isinstance(value, Jaxpr):
        for equation in value.eqns:
            for name, parameter in equation.params.items():
                if name != "callback":
                    yield from _callbacks(parameter)
                    continue
                function = getattr(parameter, "callback_func", parameter)
                # Equinox makes its own, which raise errors, anew at every trace.
                if not function.__module__.startswith("equinox"):
                    yield function
