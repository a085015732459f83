"""Jets: a network's value and derivatives at points, in one forward pass."""

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _programs as programs
from .._arguments import ArrayLike, MayBeEmpty, array, checked, instance
from .._blocks import auto_axes
from .main import MainNet, precision

# The axes of a derivative, in ascending order: () of the value, (1, 1) of ∂²/∂x².
Axes = tuple[int, ...]
Channels = dict[Axes, Array]


class Jet(eqx.Module):
    """Value and derivatives of a function, under the names that the paper uses.

    `u.value` is u itself, `u.t` is ∂u/∂t, `u.xx` is ∂²u/∂x², in any order of letters.
    On the boundary `u.n` is the derivative along the outward normal `u.normal`. Which
    derivatives there are is decided by whoever makes the jet: see `jets`.

    >>> print(Jet(jnp.array(1.0), {"x": jnp.array(2.0)}).x)
    2.0
    """

    value: Array
    derivatives: Mapping[str, Array]
    normal: Any = None

    def __getattr__(self, name: str) -> Array:
        derivatives = self.__dict__.get("derivatives", {})
        for word in (name, canonical(name)):
            if word in derivatives:
                return derivatives[word]
        raise AttributeError(
            f"this jet has no {name!r}, only value, {', '.join(derivatives)}"
        )


def by_field(jet: Jet, fields: Sequence[str]) -> list[Jet]:
    """For each of k fields its jet at n points, from one of shape (n, k), or (n,).

    Raises:
        ValueError: there is another number of them.
    """
    k, at = len(fields), jet.value.shape[1:]
    if at != ((k,) if k > 1 else ()):
        raise ValueError(
            f"the network gives shape {at} at a point, expected {k} number(s): "
            f"{', '.join(fields)}"
        )
    if k == 1:
        return [jet]
    return [
        jax.tree.map(functools.partial(lambda i, a: a[:, i], i), jet) for i in range(k)
    ]


def with_normal(
    jet: Jet, coordinates: Sequence[str], normal: Float[Array, "*n d"]
) -> Jet:
    """The jet with `u.normal`, the outward normal, and `u.n`, the derivative along it.

    Args:
        jet: has the first derivatives along all coordinates.
        coordinates: their letters.
        normal: unit vectors.
    """
    gradient = jnp.stack([getattr(jet, letter) for letter in coordinates], axis=-1)
    slope = jnp.sum(normal * gradient, axis=-1)
    return Jet(jet.value, {**jet.derivatives, "n": slope}, normal)


def canonical(word: str) -> str:
    """The same derivative with its letters in order: u_xt is u_tx.

    >>> canonical("xt")
    'tx'
    """
    return "".join(sorted(word))


@checked
def jets(
    u: Callable[[Float[Array, " d"]], Array],
    points: ArrayLike,
    derivatives: MayBeEmpty[Sequence[str]] = ("t", "x", "xx"),
    coordinates: str | Sequence[str] = ("t", "x"),
) -> Jet:
    """The jet of `u` at n points.

    A `MainNet` takes the fast way: derivatives of any order travel through the layers
    together with the value (Taylor mode; Griewank and Walther 2008, Evaluating
    Derivatives, chapter 13), in the precision of its weights, whatever JAX's mode. Any
    other function is differentiated by nested `jax.jvp` and gets the points as they
    are.

    Args:
        u: a function of one point of shape (d,).
        points: shape (n, d), physical units.
        derivatives: words in the coordinates' letters, such as "xx" for ∂²/∂x².
        coordinates: one letter for every column of `points`.

    Returns:
        A `Jet` whose arrays have shape (n,), or (n, k) if `u` has k outputs.

    Raises:
        ValueError: a word uses an unknown letter, a coordinate comes twice, or there is
            not one for each input of a `MainNet`.

    >>> j = jets(lambda p: p[0] * p[1] ** 2, jnp.array([[3.0, 2.0]]))
    >>> print(j.value, j.t, j.x, j.xx)
    [12.] [4.] [12.] [6.]
    """
    with precision(u.dtype) if isinstance(u, MainNet) else contextlib.nullcontext():
        return _jets(u, points, derivatives, coordinates)


@checked
def values(
    u: Callable[[Float[Array, " d"]], Array],
    points: MayBeEmpty[Float[ArrayLike, "n d"]],
) -> Float[Array, " n *k"]:
    """A network at n points, or any other function of one point.

    The layers of a `MainNet` see all points at once, one long axis: several times as
    fast as `jax.vmap(u)(points)`, and compiled, also at a prompt.

    Args:
        u: a function of one point of shape (d,).
        points: physical units.

    Raises:
        ValueError: a point is outside of the domain of a bounded network.

    >>> print(values(lambda p: p[0] * p[1], jnp.array([[3.0, 2.0], [1.0, 5.0]])))
    [6. 5.]
    """
    if not isinstance(u, MainNet):
        return jax.vmap(u)(jnp.asarray(points))
    with precision(u.dtype):
        points = array("points", points, "n", u.spec.sizes[0], empty=True)
        if u.spec.bounded:
            u.spec.inputs.point(points, argument="points")
        return network_values(u, points.astype(u.dtype))


def network_values(net: MainNet, points: Float[Array, "n d"]) -> Float[Array, " n *k"]:
    """The same for points in the network's precision, without checks."""
    if net.plain:
        return _compiled_values(net, points)
    return programs.call(_network_values, net, points)


def _network_values(net: MainNet, points: Array) -> Array:
    return _network(net, points, {()})[()]


# As `networks.main` has it for one point.
_compiled_values = jax.jit(_network_values, inline=True)


def _jets(
    u: Callable[[Float[Array, " d"]], Array],
    points: ArrayLike,
    derivatives: Sequence[str],
    coordinates: str | Sequence[str],
) -> Jet:
    points = array("points", points, "n", "d", empty=True)
    coordinates = tuple(instance("coordinates", one, str) for one in coordinates)
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
    axes = {w: tuple(sorted(map(coordinates.index, w))) for w in derivatives}
    words = {(), *axes.values()}
    if isinstance(u, MainNet):
        channels = _network(u, points.astype(u.dtype), words)
    else:
        channels = jax.vmap(lambda p: _nested(u, p, words))(points)
    found = {canonical(word): channels[axes[word]] for word in derivatives}
    return Jet(channels[()], found)


def _nested(f: Callable, at: Float[Array, "*n d"], words: Iterable[Axes]) -> Channels:
    """The value of f at points, and its derivatives by nested `jax.jvp`."""

    def along(f: Callable, axis: int) -> Callable:
        tangent = jnp.zeros_like(at).at[..., axis].set(1)
        return lambda p: jax.jvp(f, (p,), (tangent,))[1]

    return {word: functools.reduce(along, word, f)(at) for word in words}


def _network(net: MainNet, points: Float[Array, "n d"], words: set[Axes]) -> Channels:
    # A derivative takes those along every part of its axes, shorter ones first.
    parts = {
        part
        for word in words
        for n in range(len(word) + 1)
        for part in itertools.combinations(word, n)
    }
    order = sorted(parts, key=lambda part: (len(part), part))
    inputs, one_layer = net.spec.inputs, len(net.weights) == 1
    if any(inputs.log) or any(inputs.periodic) or net.spec.odd or one_layer:
        seen = _nested(net.spec.scale, points, order)
    else:
        # A linear scaling has the same slopes everywhere, and no other derivatives.
        slopes = [word for word in order if len(word) == 1]
        seen = {(): net.spec.scale(points)}
        seen |= _nested(net.spec.scale, points[:1], slopes)
    # Feature-first layout: the points are the long axis, which CPUs and GPUs like.
    a = {word: channel.T for word, channel in seen.items()}
    for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        a = _linear(w, b, _tanh(a, order) if i else a)
    last = {word: channel.T for word, channel in a.items()}
    # But for logarithmic ranges, outputs are linear in what the last layer gives.
    outputs = net.spec.outputs
    depth = len(order[-1]) if outputs and any(outputs.log) else 1
    u = _elementwise(lambda v: net.spec.unscale(v, points), last, depth)
    if net.spec.hard is not None:
        lam = net.known_lam()
        known = _nested(lambda p: jnp.stack(net.spec.built_in(p, lam)), points, order)
        u = {
            word: known[word][0]
            + functools.reduce(
                jnp.add, [known[left][1] * u[right] for left, right in _splits(word)]
            )
            for word in order
        }
    one = net.spec.sizes[-1] == 1
    return {word: column[:, 0] if one else column for word, column in u.items()}


def _tanh(a: Channels, order: list[Axes]) -> Channels:
    """The channels of s = tanh(a), which has s_i = q a_i and q_i = -2 s s_i.

    One that `a` does not have is zero there.
    """
    s: Channels = {(): jnp.tanh(a[()])}
    q: Channels = {(): 1 - s[()] * s[()]}
    for word in order[1:]:
        s[word] = _derivative(q, a, word)
        q[word] = -2 * _derivative(s, s, word)
    return s


def _elementwise(f: Callable, a: Channels, depth: int) -> Channels:
    """The channels of f(a), for an f of each number by itself.

    Only the first `depth` derivatives of f are not zero.
    """
    channels: Channels = {(): f(a[()])}
    if depth:
        slopes = _elementwise(
            lambda v: jax.jvp(f, (v,), (jnp.ones_like(v),))[1], a, depth - 1
        )
        channels |= {word: _derivative(slopes, a, word) for word in a if word}
    return channels


def _splits(word: Axes) -> list[tuple[Axes, Axes]]:
    """The ways to share the derivatives of a product among its two factors."""
    every = itertools.product((True, False), repeat=len(word))
    return [
        (
            tuple(itertools.compress(word, mask)),
            tuple(itertools.compress(word, [not here for here in mask])),
        )
        for mask in every
    ]


def _derivative(f: Channels, g: Channels, word: Axes) -> Array:
    """The derivative along a word of any u with u_i = f g_i, by the product rule."""
    pairs: list[tuple[Axes, Axes]] = [((), word[:1])]
    for axis in word[1:]:
        by_f = [((*left, axis), right) for left, right in pairs]
        pairs = by_f + [(left, (*right, axis)) for left, right in pairs]
    shares = Counter(pair for pair in pairs if pair[0] in f and pair[1] in g)
    terms = [n * f[left] * g[right] for (left, right), n in shares.items()]
    return functools.reduce(jnp.add, terms)


# For narrow layers and few points a call of the matrix library costs more than its
# arithmetic, most of all in the gradient of many networks at once.
_NARROW, _FEW = 16, 256


def _linear(
    w: Float[Array, "out in"], b: Float[Array, " out"], x: Channels
) -> Channels:
    # Of one point alone, `jax.vmap` makes many: the rows of Gauss-Newton.
    if max(w.shape) <= _NARROW and 1 < x[()].shape[1] <= _FEW:
        products = [_written_out(w, channel) for channel in x.values()]
    elif "points" in auto_axes():
        # Joined, they would not be split as the points are.
        products = [jax.lax.dot(w, channel) for channel in x.values()]
    else:
        # Channels one after the other along the points: one long product.
        joined = jax.lax.dot(w, jnp.concatenate([*x.values()], axis=1))
        ends = np.cumsum([channel.shape[1] for channel in x.values()])[:-1]
        products = jnp.split(joined, ends, axis=1)
    a = dict(zip(x, products, strict=True))
    return a | {(): a[()] + b[:, None]}


@jax.custom_jvp
def _written_out(w: Float[Array, "out in"], x: Float[Array, "in n"]) -> Array:
    """W X as a sum of outer products, which compiles into one loop along the points."""
    return functools.reduce(
        jnp.add, [w[:, j, None] * x[None, j] for j in range(len(x))]
    )


@_written_out.defjvp
def _written_out_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (w, x), (dw, dx) = primals, tangents
    # Row by row: its transpose, in a gradient, is a sum of outer products again.
    by_x = jnp.stack([jnp.sum(row[:, None] * dx, axis=0) for row in w])
    # Where many networks share w, `jax.vmap` knows it and sums over all of them in one
    # product, which XLA is slow at on a CPU. This way each has a product of its own.
    dw = dw + 0 * x[:1, :1]
    return _written_out(w, x), jax.lax.dot(dw, x) + by_x
