"""Many λ, many devices: λ, and the points of each, split over a mesh by JAX itself.

Weights are on every device, and so is the optimiser; what a loss does for one λ, or for
one point, is done on one. JAX puts in the communication that this takes. For a gradient
that is one sum over the devices.
"""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from . import _arguments as checks

Tree = TypeVar("Tree")
AXES = ("lam", "points")


def shard(values: Tree, *axes: str) -> Tree:
    """Splits arrays over the devices of the mesh that `fit` or `gauss_newton` got.

    The losses of this package do so with their batch. A loss of your own says it of the
    arrays that have a λ, or a point, in each row, and JAX splits all that is computed
    from them. Values stay what they are. Without a mesh, and outside of `jax.jit`,
    nothing is split.

    Args:
        values: an array, or a PyTree of arrays.
        *axes: what their first axes run over, "lam" or "points", in order. Sizes need
            not be multiples of the number of devices.

    Returns:
        The same values.

    Raises:
        ValueError: other names, or an array with fewer axes.

    >>> from hyperpinn_eqx import Loss, fit
    >>> import optax
    >>> def loss(a, key):
    ...     lams = shard(jax.random.uniform(key, (64,)), "lam")
    ...     return Loss({"mean": jnp.mean((a - lams) ** 2)})
    >>> mesh = jax.make_mesh((len(jax.devices()),), ("lam",))
    >>> options = {"steps": 100, "key": jax.random.key(0), "progress": False}
    >>> result = fit(jnp.zeros(()), loss, optax.adam(0.1), mesh=mesh, **options)
    >>> print(f"{result.model:.1f}")
    0.5
    """
    for i, name in enumerate(axes):
        if not isinstance(name, str) or name not in AXES or name in axes[:i]:
            raise ValueError(f"axes = {axes!r}, expected 'lam', 'points' or both, once")
    for leaf in jax.tree.leaves(values):
        if np.ndim(leaf) < len(axes):
            raise ValueError(
                f"values has shape {np.shape(leaf)}, expected an axis for each of "
                f"{', '.join(axes)}"
            )
    there = auto_axes()
    # Only a traced array can be split into parts of unequal size.
    traced = isinstance(jnp.zeros(()), jax.core.Tracer)
    if not there & set(axes) or not traced:
        return values
    spec = PartitionSpec(*(name if name in there else None for name in axes))
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec), values)


def auto_axes() -> set[str]:
    """The axes of the present mesh over which JAX may split work."""
    mesh = jax.sharding.get_abstract_mesh()
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name for name, kind in types if kind == AxisType.Auto}


def checked(mesh: Any) -> Mesh | None:
    """A mesh as the functions below need it; None stays None.

    Raises:
        TypeError: no mesh.
        ValueError: its axes have other names, or it leaves out a process.
    """
    if mesh is None:
        return None
    checks.instance("mesh", mesh, Mesh)
    if not mesh.axis_names or not set(mesh.axis_names) <= set(AXES):
        raise ValueError(
            f"mesh has the axes {mesh.axis_names}, expected 'lam', 'points' or both, "
            "as of jax.make_mesh((4,), ('lam',))"
        )
    there = {device.process_index for device in mesh.devices.flat}
    if len(there) < jax.process_count():
        raise ValueError(
            f"mesh has devices of the processes {sorted(there)}, expected devices of "
            f"all {jax.process_count()}"
        )
    # With axes of the type Auto, whichever they had.
    return Mesh(mesh.devices, mesh.axis_names)


def on(mesh: Mesh | None, function: Callable) -> Callable:
    """The same function, but `shard` splits its work over the mesh."""

    def run(*args: Any) -> Any:
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
            return function(*args)

    return run


def everywhere(mesh: Mesh | None, tree: Tree) -> Tree:
    """The same arrays, whole, on every device of the mesh."""
    if mesh is None:
        return tree
    arrays, rest = eqx.partition(tree, lambda x: isinstance(x, jax.Array | np.ndarray))
    whole = NamedSharding(mesh, PartitionSpec())
    return eqx.combine(jax.device_put(arrays, whole), rest)


def here(mesh: Mesh | None, tree: Tree) -> Tree:
    """The inverse of `everywhere`: arrays of this process alone, on no mesh."""
    if mesh is None:
        return tree
    # Float64 leaves stay what they are, whatever JAX's default.
    with jax.enable_x64(True):
        return jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x)) if eqx.is_array(x) else x, tree
        )


def each_lam(one: Callable, lams: Array, items: PyTree, size: int) -> PyTree:
    """`one(lam, items)` for each λ, as many at once as the caches hold.

    Args:
        one: what to do for a λ.
        lams: M values of λ.
        items: arrays of the points, or the like, of each.
        size: how many evaluations of a network a λ takes.
    """

    def block(pair: tuple[Array, PyTree]) -> PyTree:
        lams, items = pair
        return jax.vmap(one)(shard(lams, "lam"), shard(items, "lam", "points"))

    m, most = len(lams), max(1, _at_once() // size)
    if m <= most:
        return block((lams, items))
    # Equal blocks, the last one filled up with its last λ.
    blocks = -(-m // most)
    rows = np.minimum(np.arange(blocks * -(-m // blocks)), m - 1).reshape(blocks, -1)
    # A gradient computes them once more: to read what was kept takes longer.
    again = jax.checkpoint(block, prevent_cse=False)
    found = jax.lax.map(again, jax.tree.map(lambda x: x[rows], (lams, items)))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:m], found)


def _at_once() -> int:
    return 2**14 if jax.default_backend() == "cpu" else 2**20


def map_lam(function: Callable[[Any], PyTree], xs: PyTree) -> PyTree:
    """`jax.lax.map` over values of λ, where each device goes through its share."""
    if "lam" not in auto_axes():
        return jax.lax.map(function, xs)
    xs, counts = _filled(xs)
    out = _shares(lambda xs, _: jax.lax.map(function, xs), "lam")(xs, counts)
    return jax.tree.map(lambda x: x[: counts.sum()], out)


def sum_lam(function: Callable[[Any], PyTree], xs: PyTree) -> PyTree:
    """The sum of `function(x)` over values of λ, likewise one after the other."""
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], xs))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(total: PyTree, x: Any) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, function(x)), None

    if "lam" not in auto_axes():
        return jax.lax.scan(add, zero, xs)[0]

    def add_if(total: PyTree, pair: tuple) -> tuple[PyTree, None]:
        x, counts = pair
        new, _ = add(total, x)
        return jax.tree.map(lambda a, b: jnp.where(counts, a, b), new, total), None

    def share(*pairs: PyTree) -> PyTree:
        return jax.lax.psum(jax.lax.scan(add_if, zero, pairs)[0], "lam")

    return _shares(share, None)(*_filled(xs))


def in_any_process(flag: bool) -> bool:
    """Whether it holds in at least one process; all of them have to ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def _filled(xs: PyTree) -> tuple[PyTree, np.ndarray]:
    """Equal shares for all devices: the last row repeated; and which rows count."""
    size = len(jax.tree.leaves(xs)[0])
    devices = jax.sharding.get_abstract_mesh().shape["lam"]
    index = np.arange(size + -size % devices)
    if len(index) > size:
        xs = jax.tree.map(lambda x: x[np.minimum(index, size - 1)], xs)
    return xs, index < size


def _shares(function: Callable, out: str | None) -> Callable:
    return jax.shard_map(
        function,
        in_specs=PartitionSpec("lam"),
        out_specs=PartitionSpec(out),
        axis_names={"lam"},
        # With this check, a derivative by what all devices hold, taken inside the
        # function, would be summed over them.
        check_vma=False,
    )
