"""The arguments of every checked function: what is wrong with one, its annotation says.

Good values and bad ones are made from the annotations, so that a new function or a new
argument needs no test of its own.
"""

import collections.abc
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Union
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest
from jaxtyping import Float, Float64, PRNGKeyArray

import hyperpinn_eqx as hpx
from hyperpinn_eqx import _arguments as checks
from hyperpinn_eqx._arguments import (
    ArrayLike,
    Count,
    CountOrZero,
    Finite,
    MayBeEmpty,
    NonNegative,
    Positive,
    above,
    checked,
)


def checked_functions():
    """All of the package, by name, and among them the constructors of classes."""
    found = {}
    for module in pkgutil.walk_packages(hpx.__path__, "hyperpinn_eqx."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if getattr(value, "__module__", None) == module.name:
                found[name] = value
                if isinstance(value, type):
                    parts = {part: getattr(value, part) for part in vars(value)}
                    found |= {f"{name}.{part}": one for part, one in parts.items()}
    return {
        name: value for name, value in found.items() if hasattr(value, "converters")
    }


FUNCTIONS = checked_functions()
ANYTHING = {typing.Any, object, inspect.Parameter.empty, jaxtyping.PyTree}
KEYS = typing.get_args(PRNGKeyArray)


def arms_of(hint):
    """Without `Annotated` and `| None`: what is left, and the marks."""
    marks, arms = (), (hint,)
    while typing.get_origin(arms[0]) in (Annotated, Union, types.UnionType):
        if typing.get_origin(arms[0]) is Annotated:
            hint, *more = typing.get_args(arms[0])
            arms, marks = (hint,), (*marks, *more)
        else:
            args = typing.get_args(arms[0])
            arms = tuple(arm for arm in args if arm is not types.NoneType)
            if len(arms) > 1:
                break
    return arms, marks


def number_or(arms):
    """Of a union of a number and something else: both, and the class of the latter."""
    numbers = [arm for arm in arms if arms_of(arm)[0][0] in (int, float)]
    others = [arm for arm in arms if arm not in numbers]
    if not numbers or not others or arms == typing.get_args(ArrayLike):
        return None
    arrays = [arm for arm in others if is_array(arm)]
    if any(arm.array_type is np.ndarray for arm in arrays):
        return None
    return numbers[0], others[0], jax.Array if arrays else Sequence


def is_array(kind):
    return isinstance(kind, type) and issubclass(kind, jaxtyping.AbstractArray)


def fits(number, marks):
    return all(mark.holds(number) for mark in marks if isinstance(mark, checks.Bound))


def shape_of(kind, **sizes):
    axes = [axis for axis in kind.dim_str.split() if axis[0] not in "*."]
    return tuple(int(a) if a.isdigit() else sizes.get(a, 2) for a in axes)


def good(hint):
    arms, marks = arms_of(hint)
    if number_or(arms):
        arms, marks = arms_of(number_or(arms)[0])
    kind, origin = arms[0], typing.get_origin(arms[0])
    if arms == KEYS:
        return jr.key(0)
    if is_array(kind):
        number = next(n for n in (1.0, 0.5, 2.0) if fits(n, marks))
        return np.full(shape_of(kind), number)
    if kind in (int, float):
        numbers = (0.5, 1.0) if kind is float else (1, 2, 8, 16)
        return next(n for n in numbers if fits(n, marks))
    if origin is Literal:
        return typing.get_args(kind)[0]
    if collections.abc.Callable in (kind, origin):
        return len
    if origin in (tuple, Sequence):
        return (good(typing.get_args(kind)[0]),)
    if origin is Mapping:
        return {}
    if isinstance(origin or kind, type):
        # Like an instance, whatever making one takes.
        return {bool: True, str: "a"}.get(kind) or mock.Mock(spec=origin or kind)
    return None


def bad(hint):
    """What an argument with this annotation must not be."""
    arms, marks = arms_of(hint)
    if either := number_or(arms):
        number, other, of = either
        wrong = [jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in bad(other)]
        wrong = [value for value in wrong if isinstance(value, of)]
        return wrong + [value for value in bad(number) if not isinstance(value, of)]
    kind, origin = arms[0], typing.get_origin(arms[0])
    if arms == KEYS:
        return [0, jr.split(jr.key(0)), np.zeros(2, np.uint32), jnp.ones(2)]
    if is_array(kind) and kind.dtype not in (Float, Float64):
        return []
    if is_array(kind):
        shape = shape_of(kind)
        wrong = ["text", object(), 1j, [[1], [1, 2]], True]
        many = any(axis[0] in "*." for axis in kind.dim_str.split())
        wrong += [] if many else [np.ones((*shape, 2))]
        wrong += [np.ones(shape[1:])] if shape else []
        wrong += [np.full(shape, np.nan)] if "finite" in marks else []
        wrong += [np.full(shape, n) for n in (-1, 0, 10) if not fits(n, marks)]
        return wrong + ([] if "may be empty" in marks else [np.ones((0, *shape[1:]))])
    if kind in (int, float):
        wrong = ["1", True, [1], 1j, jnp.ones(2), np.nan, np.inf]
        return wrong + [n for n in (-1, 0, 1, 2, 10, 1000) if not fits(n, marks)]
    if origin is Literal:
        return ["other", 3, jnp.ones(2)]
    if origin in (tuple, Sequence):
        items = [[one] for one in bad(typing.get_args(kind)[0])]
        return ["text", 3, *items] + ([] if "may be empty" in marks else [()])
    if origin is Mapping:
        of_key, of_value = typing.get_args(kind)
        keys = [{one: good(of_value)} for one in bad(of_key) if one.__hash__]
        return [3, *keys, *({good(of_key): one} for one in bad(of_value))]
    if collections.abc.Callable in (kind, origin):
        return [3, "text"]
    kinds = [typing.get_origin(arm) or arm for arm in arms]
    known = not ANYTHING & {*kinds} and arms != typing.get_args(ArrayLike)
    if not known or not all(isinstance(kind, type) for kind in kinds):
        return []
    classes = [kind for kind in kinds if kind is not bool]
    # A class is a function as well.
    return [one for one in (object(), *classes) if not isinstance(one, tuple(kinds))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_bad_argument_is_named_with_what_was_expected(name):
    signature = inspect.signature(FUNCTIONS[name])
    parameters = [
        p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD
    ]
    arguments = {p.name: good(p.annotation) for p in parameters}
    several = {p.name for p in parameters if p.kind is p.VAR_POSITIONAL}
    cases = [(p.name, value) for p in parameters for value in bad(p.annotation)]
    for argument, value in cases:
        changed = arguments | {argument: value}
        changed |= {one: (changed[one],) for one in several}
        bound = inspect.BoundArguments(signature, changed)
        with pytest.raises((ValueError, TypeError)) as error:
            FUNCTIONS[name](*bound.args, **bound.kwargs)
        said = str(error.value).removeprefix("the keys of ")
        assert said.startswith(argument) and "expected" in said, (value, said)
    assert cases


def test_there_are_checked_functions():
    assert len(FUNCTIONS) > 40


@checked
def simulate(
    lam: Finite[Float[ArrayLike, " M *p"]],
    start: Float64[ArrayLike, "M I d"],
    *axes: Float64[ArrayLike, " _"],
    dt: Positive = 0.1,
    n: Count = 1,
    widths: Sequence[Count] = (1,),
    shape: CountOrZero | MayBeEmpty[tuple[CountOrZero, ...]] = (),
    alpha: NonNegative | Float[jax.Array, ""] = 1.0,
    scale: Annotated[Float[ArrayLike, " d"], above(0)] = (1.0, 1.0),
    kind: Literal["a", "b"] | None = None,
    labels: Mapping[str, Callable] | None = None,
    terms: Mapping[Literal["a", "b"], Float[ArrayLike, ""]] | None = None,
    key: PRNGKeyArray | None = None,
):
    """Takes one of everything, and returns what it got."""
    return dict(locals())


LAM, START = np.ones((2, 3)), np.ones((2, 1, 2), int)


def got(name, value):
    return simulate(**{"lam": LAM, "start": START, name: value})[name]


@pytest.mark.parametrize("make", [int, np.int32, np.float32, jnp.asarray])
def test_numbers_may_be_numpys_and_jaxs(make):
    assert type(got("dt", make(1))) is float and got("dt", make(1)) == 1.0
    if make is not np.float32:
        assert type(got("n", make(1))) is int and got("n", make(1)) == 1


@pytest.mark.parametrize("value", [LAM.tolist(), LAM, LAM.astype(int), jnp.array(LAM)])
def test_arrays_come_in_jaxs_precision_or_numpys(value):
    assert got("lam", value).dtype == jnp.float32
    with jax.enable_x64(True):
        # Those of JAX stay as they are.
        known = isinstance(value, jax.Array)
        found = got("lam", value)
        assert found.dtype == (jnp.float32 if known else jnp.float64)
        assert not known or found is value
    start = [[row] for row in value] if isinstance(value, list) else value[:, None]
    found = got("start", start)
    assert type(found) is np.ndarray and found.dtype == np.float64


def test_sizes_are_compared_between_arguments():
    for lam, start in ((LAM, np.ones((3, 1, 2))), (np.ones((1, 2, 3)), START)):
        with pytest.raises(ValueError, match="start"):
            simulate(lam, start)
    assert simulate(np.ones(2), START)["lam"].shape == (2,)
    with pytest.raises(ValueError, match=r"scale .*\(3,\), expected \(2,\)"):
        simulate(LAM, START, scale=[1, 2, 3])


def test_a_number_or_something_else():
    array = jnp.array(0.5)
    assert got("alpha", array) is array and got("alpha", np.float64(2)) == 2.0
    assert got("shape", 3) == 3 and got("shape", [np.int64(3), 0]) == (3, 0)
    assert got("shape", []) == ()
    for name, value in (("alpha", -1.0), ("shape", -1), ("shape", (1, -1))):
        with pytest.raises(ValueError, match=name):
            got(name, value)
    # Of what JAX traces only the shape is known.
    assert jax.jit(lambda alpha: got("alpha", alpha))(-1.0) == -1.0
    with pytest.raises(ValueError, match="alpha"):
        jax.jit(lambda alpha: got("alpha", alpha))(jnp.ones(2))


def test_bounds_hold_of_every_number_of_an_array():
    assert got("scale", [1, 2]).dtype == jnp.float32
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"scale.* at \(1,\)"):
            got("scale", [1.0, bad])


def test_sequences_become_tuples_and_mappings_dictionaries():
    for widths in ([np.int64(3), 4], np.array([3, 4]), jnp.array([3, 4])):
        assert got("widths", widths) == (3, 4)
    given = types.MappingProxyType({"a": 1, "b": np.float64(2)})
    found = got("terms", given)
    assert found == {"a": 1.0, "b": 2.0}
    assert {value.dtype for value in found.values()} == {jnp.dtype("float32")}


def test_errors_tell_the_place():
    for name, value, place in (
        ("lam", [[1.0, 2.0], [np.inf, np.nan]], r"inf at \(1, 0\)"),
        ("widths", (3, 0), r"widths\[1\] = 0"),
        ("labels", {"a": 3}, r"labels\['a'\] = 3"),
        ("labels", {1: len}, "labels.*1"),
        ("terms", {"c": 1.0}, "terms.*'c'"),
        ("terms", {"b": [1.0]}, r"terms\['b'\]"),
    ):
        with pytest.raises((ValueError, TypeError), match=place):
            got(name, value)
    with pytest.raises(ValueError, match=r"axes\[1\]"):
        simulate(LAM, START, [1.0], [[2.0]])


def test_what_jax_traces_is_checked_for_its_shape():
    @jax.jit
    def traced(lam):
        return got("lam", lam)

    assert traced(LAM * np.nan).shape == (2, 3)
    assert jax.vmap(traced)(jnp.ones((4, 2, 3))).shape == (4, 2, 3)
    # NumPy's arrays, counts and numbers have to be known.
    for name, value in {"lam": 1.0, "start": START, "dt": 1.0, "n": 1}.items():
        with pytest.raises(ValueError, match=rf"{name}\b"):
            jax.jit(lambda value, name=name: got(name, value))(value)


def test_signatures_stay():
    assert [*inspect.signature(simulate).parameters][:3] == ["lam", "start", "axes"]
    assert simulate.__doc__.startswith("Takes one")
    for options in ({}, {"start": START, "steps": 3}):
        with pytest.raises(TypeError, match=r"simulate\(\)"):
            simulate(LAM, **options)
    for key in (jr.key(0), jr.PRNGKey(0)):
        assert got("key", key) is key


def test_a_class_converts_its_fields():
    @checked
    class Pair(eqx.Module):
        lam: Finite[Float64[np.ndarray, " M"]]
        error: Float[jax.Array, " M"]
        dt: Positive = eqx.field(static=True)

    pair = Pair([1, 2], [3, 4], dt=1)
    assert pair.lam.dtype == np.float64 and isinstance(pair.error, jax.Array)
    assert type(pair.dt) is float and len(jax.tree.leaves(pair)) == 2
    with pytest.raises(ValueError, match="error"):
        Pair([1, 2], [3], 1)


def test_what_no_annotation_says_is_left_alone():
    @checked
    def anything(a, b: object, *rest, c: typing.Any = 1, d: ArrayLike = 2, **more):
        return a, b, rest, c, d, more

    given = (object(), 3, "text", None, [1, "two"], {"e": 5})
    a, b, rest, c, d, more = given
    assert anything(a, b, rest, c=c, d=d, **more) == (a, b, (rest,), c, d, more)


def test_a_class_in_place_of_an_instance_is_told(heat):
    with pytest.raises(TypeError, match=r"Heat\(\)"):
        checks.instance("problem", type(heat), hpx.AbstractPDE)
