"""Arguments, checked and converted as their annotations say.

`checked` is put on a function, on a method, or on a class whose constructor is made
from its fields. For each annotated argument it returns what the body can use, or raises
an error that names the argument, the value and what was expected:

- `Float[ArrayLike, "M p"]`: real numbers as a JAX array of this shape. A letter stands
  for the same size wherever it occurs, also in other arguments.
- `Float64[ArrayLike, "M p"]`: the same as a NumPy array.
- `Finite[…]`: without NaN and infinities; `MayBeEmpty[…]`: an axis may have size 0.
- `Count`, `Positive`, `Annotated[float, at_most(1)]`, … : numbers with bounds.
- Classes, and unions of them: an instance. `Literal`: one of these. `Callable`: what
  can be called. `PRNGKeyArray`: one random key. `tuple` and `Sequence` of one type, and
  `Mapping` to one: the same for each entry. With `| None`, None too.

Every other annotation is left alone. Arrays that JAX traces are checked for their shape
and type only; a count or a number has to be known. (jaxtyping and beartype check the
same annotations, and do so in the tests. But they convert nothing, take `True` for a
count, and tell of a list in ten lines, as of an error in the code.)
"""

import collections.abc
import dataclasses
import functools
import inspect
import math
import operator
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar, Union

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import AbstractArray, Array, Float, Float64, PRNGKeyArray

if TYPE_CHECKING:
    # A caller may pass a list, the body gets an array: no type is right for both.
    ArrayLike: TypeAlias = Any
else:
    from jaxtyping import ArrayLike as ArrayLike

T = TypeVar("T")
F = TypeVar("F", bound=Callable)
# From the argument's name, its value, and the sizes of axes so far.
Convert = Callable[[str, Any, dict[str, tuple[int, ...]]], Any]
Axes = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Bound:
    """Which numbers are accepted, and how an error says so."""

    words: str
    holds: Callable[[Any], Any]


def at_least(low: int | float) -> Bound:
    """Numbers from `low` on."""
    return Bound(f"of at least {low:g}", lambda x: x >= low)


def at_most(high: int | float) -> Bound:
    """Numbers up to `high`."""
    return Bound(f"of at most {high:g}", lambda x: x <= high)


def above(low: int | float) -> Bound:
    """Numbers greater than `low`."""
    return Bound(f"above {low:g}", lambda x: x > low)


def below(high: int | float) -> Bound:
    """Numbers less than `high`."""
    return Bound(f"below {high:g}", lambda x: x < high)


Count = Annotated[int, at_least(1)]
CountOrZero = Annotated[int, at_least(0)]
TwoOrMore = Annotated[int, at_least(2)]
Positive = Annotated[float, above(0)]
NonNegative = Annotated[float, at_least(0)]
Tolerance = Annotated[float, above(0), below(1)]
Probability = Tolerance
Finite = Annotated[T, "finite"]
MayBeEmpty = Annotated[T, "may be empty"]


def checked(target: F) -> F:
    """Checks and converts the arguments of a function or of a class's constructor.

    >>> @checked
    ... def simulate(start: Float64[ArrayLike, "I d"], *, dt: Positive = 0.1):
    ...     return start.shape
    >>> simulate([[1, 2, 3]])
    (1, 3)
    >>> simulate([1, 2, 3])
    Traceback (most recent call last):
    ValueError: start has shape (3,), expected (I, d)
    >>> simulate([[1, 2, 3]], dt=0)
    Traceback (most recent call last):
    ValueError: dt = 0, expected a finite number above 0
    """
    if isinstance(target, type):
        # The constructor that a dataclass or an `eqx.Module` has from its fields.
        target.__init__ = checked(target.__init__)  # type: ignore[misc]
        return target
    signature = inspect.signature(target)
    converters = {}
    for name, parameter in signature.parameters.items():
        convert = converter(parameter.annotation)
        if convert is not None and parameter.kind is parameter.VAR_POSITIONAL:
            convert = functools.partial(_each, convert)
        if convert is not None and parameter.kind is not parameter.VAR_KEYWORD:
            converters[name] = convert, parameter.default

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            # Python's own error names the function too.
            return target(*args, **kwargs)
        sizes: dict[str, tuple[int, ...]] = {}
        for name, value in bound.arguments.items():
            convert, default = converters.get(name, (None, None))
            if convert is not None and value is not default:
                bound.arguments[name] = convert(name, value, sizes)
        return target(*bound.args, **bound.kwargs)

    call.converters = converters  # type: ignore[attr-defined]
    return typing.cast(F, call)


def converter(hint: Any) -> Convert | None:
    """What checks and converts an argument with this annotation, if anything does."""
    marks: tuple = ()
    if typing.get_origin(hint) is Annotated:
        hint, *rest = typing.get_args(hint)
        marks = tuple(rest)
    if hint == PRNGKeyArray:
        return lambda name, value, sizes: random_key(name, value)
    if hint == ArrayLike:
        return None
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    arms = args if origin in (Union, types.UnionType) else (hint,)
    if types.NoneType in arms:
        some = (arm for arm in arms if arm is not types.NoneType)
        inner = converter(functools.reduce(operator.or_, some))
        return inner and functools.partial(_optional, inner)
    arrays = [a for a in arms if isinstance(a, type) and issubclass(a, AbstractArray)]
    numbers = [a for a in arms if _unmarked(a) in (int, float)]
    if numbers and not any(array.array_type is np.ndarray for array in arrays):
        others = [arm for arm in arms if arm not in numbers]
        if others:
            mapping = typing.get_origin(_unmarked(others[0])) is Mapping
            kind = Array if arrays else Mapping if mapping else Sequence
            return _either(converter(numbers[0]), converter(others[0]), kind)
    if arrays:
        real = arrays[0].dtype in (Float, Float64)
        return _array_converter(arrays, marks) if real else None
    if hint in (int, float):
        return lambda name, value, sizes: _number(name, value, hint, marks)
    if origin is Literal:
        return lambda name, value, sizes: choice(name, value, args)
    if collections.abc.Callable in (hint, origin):
        return lambda name, value, sizes: function(name, value)
    if origin in (tuple, Sequence) and (origin is Sequence or args[1:] == (...,)):
        return _sequence(converter(args[0]), "may be empty" in marks)
    if origin is Mapping:
        return functools.partial(_mapping, converter(args[0]), converter(args[1]))
    kinds = tuple(typing.get_origin(arm) or arm for arm in arms)
    if all(
        isinstance(kind, type) and kind not in (Any, object, inspect.Parameter.empty)
        for kind in kinds
    ):
        return lambda name, value, sizes: instance(name, value, kinds)
    return None


def _unmarked(hint: Any) -> Any:
    marked = typing.get_origin(hint) is Annotated
    return typing.get_args(hint)[0] if marked else hint


def _either(number: Convert | None, other: Convert | None, kind: type) -> Convert:
    """A number, or what is of another kind: of an array traced by JAX, its shape."""

    def convert(name: str, value: Any, sizes: dict) -> Any:
        arm = other if isinstance(value, kind) else number
        return value if arm is None else arm(name, value, sizes)

    return convert


def _optional(convert: Convert, name: str, value: Any, sizes: dict) -> Any:
    return None if value is None else convert(name, value, sizes)


def _each(
    convert: Convert | None, name: str, values: Iterable[Any], sizes: dict
) -> tuple[Any, ...]:
    if convert is None:
        return tuple(values)
    return tuple(convert(f"{name}[{i}]", v, sizes) for i, v in enumerate(values))


def _sequence(convert: Convert | None, empty: bool) -> Convert:
    def convert_all(name: str, values: Any, sizes: dict) -> tuple[Any, ...]:
        some = isinstance(values, Sequence) and not isinstance(values, str | bytes)
        some |= isinstance(values, np.ndarray | Array) and values.ndim == 1
        if not some or not (empty or len(values)):
            kind = "a tuple or list" + ", not empty" * (not empty)
            raise ValueError(f"{name} = {values!r}, expected {kind}")
        return _each(convert, name, values, sizes)

    return convert_all


def _mapping(
    of_key: Convert | None,
    of_value: Convert | None,
    name: str,
    values: Any,
    sizes: dict,
) -> Any:
    instance(name, values, Mapping)
    if of_key is not None:
        _each(of_key, f"the keys of {name}", values, sizes)
    if of_value is None:
        return values
    return {key: of_value(f"{name}[{key!r}]", v, sizes) for key, v in values.items()}


def _array_converter(arrays: list[Any], marks: tuple) -> Convert:
    axes = tuple(int(a) if a.isdigit() else a for a in arrays[0].dim_str.split())
    in_numpy = arrays[0].dtype is Float64 or all(
        a.array_type is np.ndarray for a in arrays
    )
    options: dict[str, Any] = {
        "finite": "finite" in marks,
        "empty": "may be empty" in marks,
        "bounds": [mark for mark in marks if isinstance(mark, Bound)],
    }

    def convert(name: str, value: Any, sizes: dict[str, tuple[int, ...]]) -> Any:
        known: Axes = tuple(s for a in axes for s in sizes.get(str(a), (a,)))
        make = numpy_array if in_numpy else array
        found = make(name, value, *known, **options)
        at = 0
        for axis in axes:
            n = found.ndim - len(axes) + 1 if _is_many(axis) else 1
            if axis not in ("_", "..."):
                sizes[str(axis)] = found.shape[at : at + n]
            at += n
        return found

    return convert


def count(name: str, value: Any, least: int = 1) -> int:
    """An integer of at least `least`; NumPy's and JAX's integers are fine, bools not.

    >>> count("steps", 0)
    Traceback (most recent call last):
    ValueError: steps = 0, expected an integer of at least 1
    """
    return _number(name, value, int, (at_least(least),))


def number(
    name: str, value: Any, low: float = -np.inf, *, exclusive: bool = False
) -> float:
    """One finite real number of at least `low`, or above it if `exclusive`."""
    bound = above(low) if exclusive else at_least(low)
    return _number(name, value, float, (bound,) * (low > -np.inf))


def _number(
    name: str, value: Any, kind: type[int] | type[float], bounds: Sequence[Bound]
) -> Any:
    try:
        # NumPy before 2.4 takes an array of one element for a number, and warns.
        fits = not isinstance(value, bool | str | bytes) and not np.ndim(value)
        number = operator.index(value) if kind is int else float(value)
        fits &= kind is int or math.isfinite(number)
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not (fits and all(bound.holds(number) for bound in bounds)):
        wanted = "an integer" if kind is int else "a finite number"
        raise ValueError(
            f"{name} = {value!r}, expected {wanted} "
            f"{' and '.join(bound.words for bound in bounds)}".rstrip()
        )
    return number


def array(
    name: str,
    value: Any,
    *axes: str | int,
    finite: bool = False,
    empty: bool = False,
    bounds: Sequence[Bound] = (),
) -> Array:
    """Real numbers as a floating-point JAX array of the given shape.

    Lists, NumPy arrays and integers become arrays in JAX's default precision; JAX
    arrays of a floating-point type stay as they are.

    Args:
        name: of the argument.
        value: what was given.
        *axes: for every axis its size, or a word, such as "n", for any size; "..." or
            a word with a star for any number of axes.
        finite: whether NaN and infinities are errors.
        empty: whether an axis of any size may be of size 0.
        bounds: hold of every number.

    >>> array("points", [1.0, 2.0], "n", 2)
    Traceback (most recent call last):
    ValueError: points has shape (2,), expected (n, 2)
    """
    kind = _kind(name, value, axes)
    stays = isinstance(value, Array) and jnp.issubdtype(kind, jnp.floating)
    found = value if stays else jnp.asarray(value, dtype=jnp.result_type(float))
    _fits(name, found, axes, finite, empty, bounds)
    return found


def numpy_array(
    name: str,
    value: Any,
    *axes: str | int,
    finite: bool = False,
    empty: bool = False,
    bounds: Sequence[Bound] = (),
) -> Float64[np.ndarray, "..."]:
    """The same for what NumPy computes: in float64, whatever JAX's precision is."""
    _kind(name, value, axes)
    if isinstance(value, jax.core.Tracer):
        raise ValueError(
            f"{name} = {value!r}, expected numbers: NumPy computes with them, which "
            "neither jax.jit nor jax.vmap can trace"
        )
    found = np.asarray(value, np.float64)
    _fits(name, found, axes, finite, empty, bounds)
    return found


def _shape(axes: Axes) -> str:
    return f"({', '.join(map(str, axes))}{',' * (len(axes) == 1)})"


def _is_many(axis: str | int) -> bool:
    return isinstance(axis, str) and (axis == "..." or axis.startswith("*"))


def _spelt_out(axes: Axes, ndim: int) -> Axes:
    """The axes with as many in the place of `*p` or `...` as an array has there."""
    for i, axis in enumerate(axes):
        if _is_many(axis):
            return (*axes[:i], *["_"] * (ndim - len(axes) + 1), *axes[i + 1 :])
    return axes


def _kind(name: str, value: Any, axes: Axes) -> np.dtype:
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
    axes: Axes,
    finite: bool,
    empty: bool,
    bounds: Sequence[Bound],
) -> None:
    wanted = _spelt_out(axes, found.ndim)
    fits = len(wanted) == found.ndim and all(
        size == axis if isinstance(axis, int) else empty or size > 0
        for axis, size in zip(wanted, found.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {found.shape}, expected {_shape(axes)}"
            + ", nothing empty" * (0 in found.shape and not empty)
        )
    if (finite or bounds) and not isinstance(found, jax.core.Tracer):
        values = np.asarray(found)
        good = np.isfinite(values)
        for bound in bounds:
            good = good & bound.holds(values)
        if not np.all(good):
            at = tuple(np.argwhere(~good)[0].tolist())
            words = " and ".join(bound.words for bound in bounds)
            raise ValueError(
                f"{name} holds {found[at]} at {at}, expected finite numbers "
                f"{words or 'only'}"
            )


def random_key(name: str, value: Any) -> PRNGKeyArray:
    """One JAX random key, of the new kind or the old."""
    if isinstance(value, Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.shape == ():
            return value
        if value.dtype == jnp.uint32 and value.shape == (2,):
            return value
    raise ValueError(
        f"{name} = {value!r}, expected one JAX random key, as jax.random.key(0) makes"
    )


def instance(name: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    """A value that is of a class, and not the class itself.

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
    return value


def function(name: str, value: Any) -> Any:
    """A value that can be called."""
    if not callable(value):
        raise TypeError(f"{name} = {value!r}, expected a function")
    return value


def choice(name: str, value: Any, known: Collection[Any]) -> Any:
    """A value that is one of those known."""
    # Not `in`: an array compares element by element.
    if not any(
        value is one or (type(value) is type(one) and value == one) for one in known
    ):
        raise ValueError(
            f"{name} = {value!r}, expected one of {', '.join(map(str, known))}"
        )
    return value
