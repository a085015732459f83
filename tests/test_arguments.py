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
    Finite,
    MayBeEmpty,
    Positive,
    Tolerance,
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
ANYTHING = {typing.Any, object, inspect.Parameter.empty}
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


def is_array(kind):
    return isinstance(kind, type) and issubclass(kind, jaxtyping.AbstractArray)


def shape_of(kind, **sizes):
    axes = [axis for axis in kind.dim_str.split() if axis[0] not in "*."]
    return tuple(int(a) if a.isdigit() else sizes.get(a, 2) for a in axes)


def good(hint):
    arms, marks = arms_of(hint)
    kind, origin = arms[0], typing.get_origin(arms[0])
    if arms == KEYS:
        return jr.key(0)
    if is_array(kind):
        return np.ones(shape_of(kind))
    if kind in (int, float):
        numbers = (0.5, 1.0) if kind is float else (1, 2, 8, 16)
        return next(n for n in numbers if all(mark.holds(n) for mark in marks))
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
        return True if kind is bool else mock.Mock(spec=origin or kind)
    return None


def bad(hint):
    """What an argument with this annotation must not be."""
    arms, marks = arms_of(hint)
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
        return wrong + ([] if "may be empty" in marks else [np.ones((0, *shape[1:]))])
    if kind in (int, float):
        wrong = ["1", True, [1], 1j, jnp.ones(2), np.nan, np.inf]
        numbers = (-1, 0, 1, 2, 10, 1000)
        return wrong + [n for n in numbers if not all(m.holds(n) for m in marks)]
    if origin is Literal:
        return ["other", 3, jnp.ones(2)]
    if origin in (tuple, Sequence):
        items = [[one] for one in bad(typing.get_args(kind)[0])]
        return ["text", 3, *items] + ([] if "may be empty" in marks else [()])
    if origin is Mapping:
        return [3, *({"a": one} for one in bad(typing.get_args(kind)[1]))]
    if collections.abc.Callable in (kind, origin):
        return [3, "text"]
    kinds = [typing.get_origin(arm) or arm for arm in arms]
    if arms == typing.get_args(ArrayLike) or not all(
        isinstance(k, type) for k in kinds
    ):
        return []
    classes = [kind for kind in kinds if kind is not bool]
    return [] if ANYTHING & {*kinds} else [object(), *classes]


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
        said = str(error.value)
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
    rtol: Tolerance = 0.5,
    widths: Sequence[Count] = (1,),
    shape: MayBeEmpty[tuple[int, ...]] = (),
    kind: Literal["a", "b"] | None = None,
    labels: Mapping[str, Callable] | None = None,
    key: PRNGKeyArray | None = None,
):
    """Takes one of everything, and returns what it got."""
    return dict(locals())


LAM, START = np.ones((2, 3)), np.ones((2, 1, 2), int)


@pytest.mark.parametrize("value", [1, np.int32(1), jnp.asarray(1)])
def test_counts_may_be_numpys_and_jaxs(value):
    found = simulate(LAM, START, n=value)["n"]
    assert type(found) is int and found == 1


@pytest.mark.parametrize("value", [1, np.float32(1), jnp.asarray(1.0)])
def test_numbers_may_be_numpys_and_jaxs(value):
    found = simulate(LAM, START, dt=value)["dt"]
    assert type(found) is float and found == 1.0


@pytest.mark.parametrize(
    "value", [LAM.tolist(), LAM, LAM.astype(int), jnp.ones((2, 3))]
)
def test_arrays_come_in_jaxs_precision(value):
    assert simulate(value, START)["lam"].dtype == jnp.float32
    with jax.enable_x64(True):
        known = isinstance(value, jax.Array)
        found = simulate(value, START)["lam"]
        assert found.dtype == (jnp.float32 if known else jnp.float64)


def test_jax_arrays_stay_as_they_are():
    for dtype in (jnp.float32, jnp.bfloat16):
        lam = jnp.ones((2, 3), dtype)
        assert simulate(lam, START)["lam"] is lam


@pytest.mark.parametrize("value", [START.tolist(), START, jnp.ones((2, 1, 2))])
def test_arrays_for_numpy_are_float64_in_either_mode(value):
    found = simulate(LAM, value)["start"]
    assert type(found) is np.ndarray and found.dtype == np.float64


def test_sizes_are_compared_between_arguments():
    with pytest.raises(
        ValueError, match=r"start has .*\(3, 1, 2\), expected \(2, I, d"
    ):
        simulate(LAM, np.ones((3, 1, 2)))
    assert simulate(np.ones(2), START)["lam"].shape == (2,)
    with pytest.raises(ValueError, match="start"):
        simulate(np.ones((1, 2, 3)), START)


def test_errors_tell_the_place():
    with pytest.raises(ValueError, match=r"lam holds inf at \(1, 0\), expected"):
        simulate([[1.0, 2.0], [np.inf, np.nan]], START)
    with pytest.raises(ValueError, match=r"widths\[1\] = 0, expected"):
        simulate(LAM, START, widths=(3, 0))
    with pytest.raises(ValueError, match=r"axes\[1\] has shape .*, expected"):
        simulate(LAM, START, [1.0], [[2.0]])
    with pytest.raises(TypeError, match=r"labels\['a'\] = 3, expected"):
        simulate(LAM, START, labels={"a": 3})


def test_sequences_become_tuples():
    for widths in ([np.int64(3), 4], np.array([3, 4]), jnp.array([3, 4])):
        found = simulate(LAM, START, widths=widths, shape=[])
        assert found["widths"] == (3, 4) and found["shape"] == ()


def test_what_jax_traces_is_checked_for_its_shape():
    @jax.jit
    def traced(lam):
        return simulate(lam, START)["lam"]

    assert traced(LAM * np.nan).shape == (2, 3)
    assert jax.vmap(traced)(jnp.ones((4, 2, 3))).shape == (4, 2, 3)
    with pytest.raises(ValueError, match="start"):
        traced(np.ones((3, 3)))
    for bad in ({"start": START[None, 0]}, {"dt": 1.0}, {"n": 1}):
        ((name, value),) = bad.items()
        with pytest.raises(ValueError, match=rf"(?s){name} = .*expected"):
            jax.jit(
                lambda value, name=name: simulate(
                    **{"lam": LAM, "start": START, name: value}
                )
            )(value)


def test_signatures_stay():
    assert [*inspect.signature(simulate).parameters][:3] == ["lam", "start", "axes"]
    assert simulate.__doc__.startswith("Takes one")
    with pytest.raises(TypeError, match=r"simulate\(\)"):
        simulate(LAM)
    with pytest.raises(TypeError, match=r"simulate\(\)"):
        simulate(LAM, START, steps=3)


def test_keys_of_both_kinds():
    for key in (jr.key(0), jr.PRNGKey(0)):
        assert simulate(LAM, START, key=key)["key"] is key


def test_a_class_converts_its_fields():
    @checked
    class Pair(eqx.Module):
        lam: Finite[Float64[np.ndarray, " M"]]
        error: Float[jax.Array, " M"]
        dt: Positive = eqx.field(static=True)

    pair = Pair([1, 2], [3, 4], dt=1)
    assert pair.lam.dtype == np.float64 and isinstance(pair.error, jax.Array)
    assert type(pair.dt) is float and len(jax.tree.leaves(pair)) == 2
    with pytest.raises(ValueError, match=r"error has shape \(1,\), expected \(2,\)"):
        Pair([1, 2], [3], 1)


def test_what_no_annotation_says_is_left_alone():
    @checked
    def anything(a, b: object, *rest, c: typing.Any = 1, d: ArrayLike = 2, **more):
        return a, b, rest, c, d, more

    given = (object(), 3, "text", None, [1, "two"], {"e": 5})
    a, b, rest, c, d, more = given
    assert anything(a, b, rest, c=c, d=d, **more) == (a, b, (rest,), c, d, more)


def test_instances(heat):
    with pytest.raises(TypeError, match="problem = 3, expected an ODE or PDE"):
        checks.instance("problem", 3, (hpx.AbstractODE, hpx.AbstractPDE))
    with pytest.raises(TypeError, match=r"call the class: Heat\(\)"):
        checks.instance("problem", type(heat), hpx.AbstractPDE)
