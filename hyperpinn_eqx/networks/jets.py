"""Jets: a network's value and derivatives at points, in one forward pass."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .. import _arguments as checks
from .._blocks import auto_axes
from .main import MainNet, precision


class Jet(eqx.Module):
    """Value and derivatives of a function, under the names that the paper uses.

    `u.value` is u itself, `u.t` is ∂u/∂t, `u.xx` is ∂²u/∂x². Which derivatives there
    are is decided by whoever makes the jet: see `jets`.

    Raises:
        TypeError: something else than an array and a dictionary of arrays.
        AttributeError: the jet does not have this derivative.

    >>> print(Jet(jnp.array(1.0), {"x": jnp.array(2.0)}).x)
    2.0
    """

    value: Array
    derivatives: dict[str, Array]

    def __check_init__(self) -> None:
        checks.instance("value", self.value, (Array, np.ndarray))
        checks.instance("derivatives", self.derivatives, dict)
        for word, derivative in self.derivatives.items():
            checks.instance(f"derivatives[{word!r}]", derivative, (Array, np.ndarray))

    def __getattr__(self, name: str) -> Array:
        derivatives = self.__dict__.get("derivatives", {})
        if name in derivatives:
            return derivatives[name]
        raise AttributeError(
            f"this jet has no {name!r}, only value, {', '.join(derivatives)}; "
            "name more in the problem's `derivatives`"
        )


def jets(
    u: Callable[[Float[Array, " d"]], Array],
    points: Float[ArrayLike, "n d"],
    derivatives: Sequence[str] = ("t", "x", "xx"),
    coordinates: Sequence[str] = ("t", "x"),
    *,
    reverse: bool = False,
) -> Jet:
    """The jet of `u` at n points.

    A `MainNet` takes the fast way: all derivatives up to second order travel through
    the layers together with the value, stacked as channels (forward-mode, Taylor
    style), in the precision of its weights, whatever JAX's mode. Any other function is
    differentiated by nested `jax.jvp` and gets the points as they are.

    Args:
        u: a function of one point of shape (d,).
        points: shape (n, d), physical units.
        derivatives: words in the coordinates' letters, such as "xx" for ∂²/∂x².
        coordinates: one letter for every column of `points`.
        reverse: promises that the result will be differentiated in reverse mode at
            first, as the gradient of a loss is; narrow networks then take less time.

    Returns:
        A `Jet` whose arrays have shape (n,), or (n, k) if `u` has k outputs.

    Raises:
        ValueError: `points` is not (n, d), a word uses an unknown letter, a coordinate
            comes twice, or there is not one for each input of a `MainNet`.
        TypeError: `u` is no function, or words are not strings in a tuple or list.

    >>> j = jets(lambda p: p[0] * p[1] ** 2, jnp.array([[3.0, 2.0]]))
    >>> print(j.value, j.t, j.x, j.xx)
    [12.] [4.] [12.] [6.]
    """
    checks.function("u", u)
    with precision(u.dtype) if isinstance(u, MainNet) else contextlib.nullcontext():
        return _jets(u, points, derivatives, coordinates, reverse)


def _jets(
    u: Callable[[Float[Array, " d"]], Array],
    points: Float[ArrayLike, "n d"],
    derivatives: Sequence[str],
    coordinates: Sequence[str],
    reverse: bool,
) -> Jet:
    points = checks.array("points", points, "n", "d", empty=True)
    letters = isinstance(coordinates, str)
    coordinates = _strings(
        "coordinates", tuple(coordinates) if letters else coordinates
    )
    derivatives = _strings("derivatives", derivatives)
    checks.choice("reverse", reverse, (True, False))
    if len(set(coordinates)) < len(coordinates):
        raise ValueError(f"coordinates = {coordinates}, expected different letters")
    if points.shape[1] != len(coordinates):
        raise ValueError(
            f"points has shape {points.shape}, expected (n, {len(coordinates)}) for "
            f"coordinates {coordinates}"
        )
    if isinstance(u, MainNet) and u.spec.sizes[0] != len(coordinates):
        raise ValueError(
            f"coordinates = {coordinates}, expected {u.spec.sizes[0]} for a network of "
            f"{', '.join(u.spec.inputs.names)}"
        )
    for word in derivatives:
        if not word or set(word) - set(coordinates):
            raise ValueError(
                f"derivatives: {word!r}, expected letters of {coordinates}"
            )
    words = [tuple(coordinates.index(c) for c in word) for word in derivatives]
    if (
        isinstance(u, MainNet)
        and all(len(word) <= 2 for word in words)
        and not any(u.spec.inputs.log)
        and not (u.spec.outputs and any(u.spec.outputs.log))
    ):
        narrow = reverse and max(u.spec.sizes) <= _NARROW
        layer = _written_out_layer if narrow else _layer
        value, channels = _mlp_jets(u, points.astype(u.dtype), words, layer)
    else:
        value, channels = jax.vmap(lambda p: _generic_jet(u, p, words))(points)
    return Jet(value, dict(zip(derivatives, channels, strict=True)))


def _strings(name: str, values: Sequence[str]) -> tuple[str, ...]:
    checks.instance(name, values, (tuple, list))
    for value in values:
        checks.instance(name, value, str)
    return tuple(values)


def _generic_jet(
    u: Callable, point: Float[Array, " d"], words: list[tuple[int, ...]]
) -> tuple[Array, list[Array]]:
    def along(f: Callable, axis: int) -> Callable:
        tangent = jnp.zeros_like(point).at[axis].set(1)
        return lambda p: jax.jvp(f, (p,), (tangent,))[1]

    channels = []
    for word in words:
        f = u
        for axis in word:
            f = along(f, axis)
        channels.append(f(point))
    return u(point), channels


def _mlp_jets(
    net: MainNet,
    points: Float[Array, "n d"],
    words: list[tuple[int, ...]],
    apply: Callable[[Array, list[Array]], list[Array]],
) -> tuple[Array, list[Array]]:
    # Feature-first layout: the points are the long axis, which CPUs and GPUs like.
    first = sorted({axis for word in words for axis in word})
    second = sorted({tuple(sorted(word)) for word in words if len(word) == 2})
    at: dict[tuple[int, ...], int] = {(axis,): 1 + i for i, axis in enumerate(first)}
    at |= {pair: 1 + len(first) + i for i, pair in enumerate(second)}

    box, odd = net.spec.inputs, net.spec.odd_axis
    # Of an odd input the network sees the size, on half of the range; of one that is
    # fixed, nothing.
    lengths = [box.high[i] - box.low[i] for i in first]
    rates = [
        (4 if i == odd else 2) / length if length else 0.0
        for i, length in zip(first, lengths, strict=True)
    ]
    seen = net.spec.scale(points).T
    w = net.weights[0]
    a = jax.lax.dot(w, seen) + net.biases[0][:, None]
    slopes, curves = [], [jnp.zeros_like(a) for _ in second]
    for axis, rate in zip(first, rates, strict=True):
        if not box.periodic[axis]:
            # The layer is linear in it: no slope depends on the point.
            slopes.append(jnp.broadcast_to(w[:, axis, None] * rate, a.shape))
            continue
        angular = math.pi * rate
        sine = len(box) + sum(box.periodic[:axis])
        by_cosine, by_sine = w[:, axis, None], w[:, sine, None]
        cosines, sines = seen[axis, None], seen[sine, None]
        slopes.append(angular * (by_sine * cosines - by_cosine * sines))
        if (axis, axis) in second:
            wave = by_cosine * cosines + by_sine * sines
            curves[second.index((axis, axis))] = -(angular**2) * wave
    for w, b in zip(net.weights[1:], net.biases[1:], strict=True):
        s = jnp.tanh(a)
        ds = 1 - s * s
        channels = [s] + [ds * slope for slope in slopes]
        for (p, q), curve in zip(second, curves, strict=True):
            bend = slopes[first.index(p)] * slopes[first.index(q)]
            channels.append(ds * (curve - 2 * s * bend))
        a, *rest = apply(w, channels)
        a = a + b[:, None]
        slopes, curves = rest[: len(first)], rest[len(first) :]

    rows = jnp.stack([a, *slopes, *curves], axis=1)
    if (outputs := net.spec.outputs) is not None:
        pairs = zip(outputs.low, outputs.high, strict=True)
        half = jnp.array([(hi - lo) / 2 for lo, hi in pairs], dtype=rows.dtype)
        rows = rows * half[:, None, None]
        mid = jnp.array(outputs.low, dtype=rows.dtype) + half
        rows = rows.at[:, 0].add(mid[:, None])
    if odd is not None:
        sign = jnp.where(points[:, odd] < 0, -1, 1).astype(rows.dtype)
        # Every derivative along the odd coordinate turns odd into even, or back.
        turns = [0, *(int(axis == odd) for axis in first)]
        turns += [pair.count(odd) for pair in second]
        rows = rows * jnp.stack([sign ** (1 + n) for n in turns])[None]
    columns = rows[0] if net.spec.sizes[-1] == 1 else jnp.moveaxis(rows, 0, -1)
    return columns[0], [columns[at[tuple(sorted(word))]] for word in words]


def _layer(
    w: Float[Array, "out in"], channels: list[Float[Array, "in n"]]
) -> list[Float[Array, "out n"]]:
    if "points" in auto_axes():
        # Joined, they would not be split as the points are.
        return [jax.lax.dot(w, channel) for channel in channels]
    # Channels one after the other along the points: one long product.
    joined = jax.lax.dot(w, jnp.concatenate(channels, axis=1))
    return jnp.split(joined, len(channels), axis=1)


# The widest network whose products are written out.
_NARROW = 16


def _written_out_layer(
    w: Float[Array, "out in"], channels: list[Float[Array, "in n"]]
) -> list[Float[Array, "out n"]]:
    return [_product(w, channel) for channel in channels]


def _written_out(w: Float[Array, "out in"], x: Float[Array, "in n"]) -> Array:
    terms = [w[:, j, None] * x[None, j] for j in range(x.shape[0])]
    return functools.reduce(jnp.add, terms)


@jax.custom_vjp
def _product(w: Float[Array, "out in"], x: Float[Array, "in n"]) -> Array:
    """W X as a sum of outer products, which compiles into one loop along the points.

    For an 8 x 8 matrix a call of the matrix library costs more than its arithmetic,
    most of all in the gradient of many networks at once.
    """
    return _written_out(w, x)


def _product_forward(w: Array, x: Array) -> tuple[Array, tuple[Array, Array]]:
    return _written_out(w, x), (w, x)


def _product_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    w, x = saved
    return jax.lax.dot(g, x.T), _written_out(w.T, g)


_product.defvjp(_product_forward, _product_backward)
