"""Compiling what a caller's function is now, and no program twice.

What `jax.jit` has compiled it does not read again: a variable or an attribute that the
function looks up stays as it was. So whatever contains a caller's function, problem or
model is traced anew at every call. Only executables are kept, each under the program
that a trace came to. Arrays that a function closes over are inputs of that program, so
that a loop over data sets compiles once, and keeps none of them alive.
"""

import collections
import contextlib
import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

_MOST = 64
_executables: collections.OrderedDict[bytes, Callable] = collections.OrderedDict()
_lock = threading.Lock()


def compiled(function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """A function as it is now, compiled for arguments like these.

    Args:
        function: from PyTrees to a PyTree.
        *args: PyTrees of the structure, shapes and types of those to come; what is no
            array in them becomes part of the program.

    Returns:
        The same function of such arguments. If JAX traces these, or what the function
        closes over, it is not compiled: the caller does that.

    >>> slope = 2.0
    >>> line = lambda x: slope * x
    >>> steep = compiled(line, jnp.ones(()))
    >>> slope = 3.0
    >>> print(steep(jnp.ones(())), call(line, jnp.ones(())))
    2.0 3.0
    """
    arrays, static = eqx.partition(args, _is_array)
    leaves, structure = jax.tree.flatten(arrays)
    out: list[Any] = []

    def flat(*leaves: Any) -> list[Any]:
        value = function(*eqx.combine(jax.tree.unflatten(structure, leaves), static))
        dynamic, rest = eqx.partition(value, _is_array)
        found, tree = jax.tree.flatten(dynamic)
        out[:] = tree, rest
        return found

    if _traced(leaves):
        return function
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    jaxpr = jax.make_jaxpr(flat)(*leaves)
    if _traced(jaxpr.consts):
        return function
    consts = [jnp.asarray(value) for value in jaxpr.consts]

    def program(consts: list[Any], leaves: list[Any]) -> list[Any]:
        return jaxpr_as_fun(ClosedJaxpr(jaxpr.jaxpr, consts))(*leaves)

    # A profile, or JAX's log of what it compiles, then tells what it is.
    inner = function.func if isinstance(function, functools.partial) else function
    program.__name__ = getattr(inner, "__name__", "program").strip("<>_")
    execute = _executable(program, consts, leaves)

    def run(*args: Any) -> Any:
        given = jax.tree.leaves(eqx.filter(args, _is_array))
        found = execute(consts, [jnp.asarray(value) for value in given])
        tree, rest = out
        return eqx.combine(jax.tree.unflatten(tree, found), rest)

    return run


def call(function: Callable[..., Any], *args: Any) -> Any:
    """What a function as it is now returns, by way of `compiled`."""
    return compiled(function, *args)(*args)


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when it is first called with arguments of a kind.

    For a loop that calls it many times: it stays what it was at that first call, for as
    long as the loop holds on to it.
    """
    runs: dict[Any, Callable] = {}

    def run(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        kind = structure, tuple(_kind(x) if _is_array(x) else x for x in leaves)
        if kind not in runs:
            runs[kind] = compiled(function, *args)
        return runs[kind](*args)

    return run


@contextlib.contextmanager
def now() -> Iterator[None]:
    """Computes in float64 and at once, whatever mode or trace this is called in.

    As `jax.ensure_compile_time_eval`, in which each constant of a caller's function
    would be compiled by itself.
    """
    with jax.enable_x64(True), jax.core.eval_context():
        yield


def _kind(array: Any) -> tuple:
    return array.shape, array.dtype, getattr(array, "sharding", None)


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def _traced(values: list[Any]) -> bool:
    return any(isinstance(value, jax.core.Tracer) for value in values)


@functools.cache
def _options() -> dict[str, bool] | None:
    """What makes XLA faster where it can be.

    On a CPU its older code generator takes two thirds of the time of the newer one for
    programs like ours, and they run as fast.
    """
    options = {"xla_cpu_use_fusion_emitters": False}
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError:
        # A version that has but one.
        return None
    return options


def _executable(program: Callable, *args: Any) -> Callable:
    jitted = jax.jit(program, compiler_options=_options())
    if not jax.sharding.get_abstract_mesh().empty:
        # Which devices take part is not in the text of a program.
        return jitted
    lowered = jitted.lower(*args)
    # Neither inputs that a program does not use nor devices are in its text.
    inputs = [(a.shape, a.dtype, a.sharding) for a in jax.tree.leaves(args)]
    text = f"{lowered.as_text()} {inputs} {jnp.zeros(()).devices()}"
    if "callback" in text:
        # What it calls back is not in its text.
        return lowered.compile()
    key = hashlib.sha256(text.encode()).digest()
    with _lock:
        found = _executables.pop(key, None)
    if found is None:
        found = lowered.compile()
    with _lock:
        _executables[key] = found
        while len(_executables) > _MOST:
            _executables.popitem(last=False)
    return found
