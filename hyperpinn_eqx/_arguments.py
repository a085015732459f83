"""What public functions ask of their arguments, said in one way.

Each check returns the value as the function can use it, or raises an error that names
the argument, the value and what was expected. Arrays that JAX traces are checked for
their shape and type only; a count or a number has to be known.
"""

import operator
from collections.abc import Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, PRNGKeyArray


def count(name: str, value: Any, least: int = 1) -> int:
    """An integer of at least `least`; NumPy's and JAX's integers are fine, bools not.

    Raises:
        ValueError: anything else.

    >>> count("steps", 0)
    Traceback (most recent call last):
    ValueError: steps = 0, expected an integer of at least 1
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} = {value!r}, expected an integer of at least {least}")
    return number


def number(
    name: str, value: Any, low: float = -np.inf, *, exclusive: bool = False
) -> float:
    """One finite real number of at least `low`, or above it if `exclusive`.

    Raises:
        ValueError: anything else.
    """
    bound = f" {'above' if exclusive else 'of at least'} {low:g}" * (low > -np.inf)
    error = ValueError(f"{name} = {value!r}, expected a finite number{bound}")
    try:
        # NumPy before 2.4 takes an array of one element for a number, and warns.
        if isinstance(value, bool | str | bytes) or np.ndim(value):
            raise error
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise error from None
    if not np.isfinite(number) or number < low or (exclusive and number == low):
        raise error
    return number


def positive(name: str, value: Any) -> float:
    """One finite number above 0.

    >>> positive("dt", float("nan"))
    Traceback (most recent call last):
    ValueError: dt = nan, expected a finite number above 0
    """
    return number(name, value, 0.0, exclusive=True)


def array(
    name: str, value: Any, *axes: str | int, finite: bool = False, empty: bool = False
) -> Array:
    """Real numbers as a floating-point JAX array of the given shape.

    Lists, NumPy arrays and integers become arrays in JAX's default precision; JAX
    arrays of a floating-point type stay as they are.

    Args:
        name: of the argument.
        value: what was given.
        *axes: for every axis its size, or a word, such as "n", for any size. An axis
            named "..." as the first stands for any number of axes.
        finite: whether NaN and infinities are errors.
        empty: whether an axis of any size may be of size 0.

    Raises:
        ValueError: no such numbers, or not of this shape.

    >>> array("points", [1.0, 2.0], "n", 2)
    Traceback (most recent call last):
    ValueError: points has shape (2,), expected (n, 2)
    """
    kind = _kind(name, value, axes)
    stays = isinstance(value, Array) and jnp.issubdtype(kind, jnp.floating)
    found = value if stays else jnp.asarray(value, dtype=jnp.result_type(float))
    _fits(name, found, axes, finite, empty)
    return found


def numpy_array(
    name: str, value: Any, *axes: str | int, finite: bool = False, empty: bool = False
) -> Float64[np.ndarray, "..."]:
    """The same for what NumPy computes: in float64, whatever JAX's precision is.

    Raises:
        ValueError: no such numbers, not of this shape, or traced by JAX.
    """
    _kind(name, value, axes)
    if isinstance(value, jax.core.Tracer):
        raise ValueError(
            f"{name} = {value!r}, expected numbers: NumPy computes with them, which "
            "neither jax.jit nor jax.vmap can trace"
        )
    found = np.asarray(value, np.float64)
    _fits(name, found, axes, finite, empty)
    return found


def _shape(axes: tuple[str | int, ...]) -> str:
    return f"({', '.join(map(str, axes))}{',' * (len(axes) == 1)})"


def _kind(name: str, value: Any, axes: tuple[str | int, ...]) -> np.dtype:
    try:
        # Not asarray(value) by JAX: it would take a list of strings for an error of
        # its own, and NumPy tells what kind of numbers there are.
        kind = value.dtype if isinstance(value, Array) else np.asarray(value).dtype
        real = jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)
    except (TypeError, ValueError):
        real = False
    if not real:
        raise ValueError(
            f"{name} = {value!r}, expected an array of real numbers, shape "
            f"{_shape(axes)}"
        )
    return kind


def _fits(
    name: str,
    found: Array | np.ndarray,
    axes: tuple[str | int, ...],
    finite: bool,
    empty: bool,
) -> None:
    wanted, sizes = axes, found.shape
    if axes[:1] == ("...",):
        wanted, sizes = axes[1:], found.shape[max(0, found.ndim - len(axes) + 1) :]
    fits = len(wanted) == len(sizes) and all(
        size == axis if isinstance(axis, int) else empty or size > 0
        for axis, size in zip(wanted, sizes, strict=True)
    )
    if not fits or (not empty and 0 in found.shape):
        raise ValueError(
            f"{name} has shape {found.shape}, expected {_shape(axes)}"
            + ", nothing empty" * (0 in found.shape and not empty)
        )
    if finite and not isinstance(found, jax.core.Tracer):
        bad = np.argwhere(~np.isfinite(np.asarray(found)))
        if len(bad):
            at = tuple(bad[0].tolist())
            raise ValueError(
                f"{name} holds {found[at]} at {at}, expected finite numbers only"
            )


def broadcast(**arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays, broadcast against each other.

    Raises:
        ValueError: their shapes do not broadcast.

    >>> broadcast(t=np.zeros(2), x=np.zeros(3))
    Traceback (most recent call last):
    ValueError: t and x have shapes (2,) and (3,), expected shapes that broadcast
    """
    try:
        return np.broadcast_arrays(*arrays.values())
    except ValueError:
        names, shapes = map(_listed, (arrays, (a.shape for a in arrays.values())))
        raise ValueError(
            f"{names} have shapes {shapes}, expected shapes that broadcast"
        ) from None


def _listed(things: Iterable[object]) -> str:
    *first, last = map(str, things)
    return f"{', '.join(first)} and {last}"


def float64_mode() -> None:
    """Checks that JAX computes in float64.

    Raises:
        ValueError: it does not.
    """
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "jax_enable_x64 = False, expected True: Gauss-Newton needs float64"
        )


def random_key(name: str, value: Any) -> PRNGKeyArray:
    """One JAX random key, of the new kind or the old.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.shape == ():
            return value
        if value.dtype == jnp.uint32 and value.shape == (2,):
            return value
    raise ValueError(
        f"{name} = {value!r}, expected one JAX random key, as jax.random.key(0) makes"
    )


def instance(name: str, value: Any, kind: type | tuple[type, ...]) -> None:
    """Checks that a value is of a class, and not the class itself.

    Raises:
        TypeError: it is not.

    >>> instance("domain", 3, dict)
    Traceback (most recent call last):
    TypeError: domain = 3, expected a dict
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(k.__name__.removeprefix("Abstract") for k in kinds)
        article = "an" if wanted[0] in "AEIOU" else "a"
        if isinstance(value, type) and issubclass(value, kind):
            wanted += f"; call the class: {value.__name__}()"
        raise TypeError(f"{name} = {value!r}, expected {article} {wanted}")


def function(name: str, value: Any) -> None:
    """Checks that a value can be called.

    Raises:
        TypeError: it cannot.
    """
    if not callable(value):
        raise TypeError(f"{name} = {value!r}, expected a function")


def choice(name: str, value: Any, known: Collection[Any]) -> None:
    """Checks that a value is one of those known.

    Raises:
        ValueError: it is not.
    """
    # Not `in`: an array compares element by element.
    if not any(
        value is one or (type(value) is type(one) and value == one) for one in known
    ):
        raise ValueError(
            f"{name} = {value!r}, expected one of {', '.join(map(str, known))}"
        )
