"""The main network: the small one that is evaluated at every point."""

import contextlib
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .. import _arguments as checks
from .._arguments import Count, checked
from ..box import Box

F = TypeVar("F", bound=Callable)
# From a point and λ to g and d.
Hard = Callable[[Float[Array, " d"], Float[Array, "*p"]], tuple[Any, Any]]


@checked
@dataclasses.dataclass(frozen=True)
class MainNetSpec:
    """The shape of a main network: everything about it but its weights.

    Args:
        sizes: layer widths, inputs first, e.g. `(2, 8, 8, 8, 8, 8, 8, 1)`.
        inputs: range of every input, mapped to [-1, 1] before the first layer; of a
            periodic one, the layer sees the cosine and the sine.
        outputs: range of every output, mapped from [-1, 1] after the last layer;
            None leaves outputs as they are.
        bounded: whether a point outside `inputs` is an error.
        odd: a coordinate in which the network is odd by construction: the layers see
            `|x|`, and their output takes the sign of x. Where the solution is known to
            be odd they need to learn only half of it. At 0 the network may jump, which
            no point beside it sees: a condition there has to ask for u = 0.
        hard: builds conditions in: the network is g(x, λ) + d(x, λ) N(x), where N is
            what the layers give. From a point, shape (d,), and λ, shape () for one
            parameter and (p,) for several, to the pair (g, d), each a number, or one
            for each output; written with `jax.numpy`. Where d is zero, u is g.
            `outputs` and `odd` are about N alone. A file of weights keeps only the
            name of the function.

    Raises:
        ValueError: fewer than two sizes, ranges that do not fit, or an `odd` that is no
            coordinate with a symmetric range.

    >>> spec = MainNetSpec((2, *6 * (8,), 1), Box(t=(0, 1), x=(-1, 1)))
    >>> spec.size
    393
    """

    sizes: tuple[Count, ...]
    inputs: Box
    outputs: Box | None = None
    bounded: bool = True
    odd: str | None = None
    hard: Hard | None = None

    def __post_init__(self) -> None:
        if len(self.sizes) < 2:
            raise ValueError(f"sizes = {self.sizes}, expected two or more")
        if len(self.inputs) != self.sizes[0]:
            raise ValueError(
                f"inputs = {self.inputs}, expected {self.sizes[0]} axes, the first of "
                f"sizes = {self.sizes}"
            )
        if self.outputs is not None and len(self.outputs) != self.sizes[-1]:
            raise ValueError(
                f"outputs = {self.outputs}, expected {self.sizes[-1]} axes, the last "
                f"of sizes = {self.sizes}"
            )
        if self.odd is not None:
            checks.choice("odd", self.odd, self.inputs.names)
            low, high = self.inputs.ranges()[self.odd][:2]
            periodic = self.inputs.periodic[self.odd_axis or 0]
            if low != -high or self.outputs is not None or periodic:
                raise ValueError(
                    f"odd = {self.odd!r}, expected an input with a range (-a, a) that "
                    "is not periodic, and no range of outputs"
                )

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The shape (out, in) of every layer's weight."""
        sizes = (self.inputs.width, *self.sizes[1:])
        return list(zip(sizes[1:], sizes[:-1], strict=True))

    @property
    def size(self) -> int:
        """The number of weights and biases P."""
        return sum(out * size + out for out, size in self.shapes)

    @property
    def odd_axis(self) -> int | None:
        """Which input is the odd one."""
        return None if self.odd is None else self.inputs.names.index(self.odd)

    def scale(self, points: Float[ArrayLike, "*n d"]) -> Float[Array, "*n w"]:
        """What the first layer sees: inputs in [-1, 1], an odd one by its size.

        Of a periodic one its cosine, and at the end its sine.
        """
        points = checks.array("points", points, "...", self.sizes[0], empty=True)
        scaled = self.inputs.scale(points)
        if (axis := self.odd_axis) is None:
            return self.inputs.embed(scaled)
        x = scaled[..., axis]
        # Unlike jnp.abs, it has a slope at 0: the one from the right.
        scaled = scaled.at[..., axis].set(2 * jnp.where(x < 0, -x, x) - 1)
        return self.inputs.embed(scaled)

    def unscale(
        self, values: Float[Array, "*n k"], points: Float[Array, "*n d"]
    ) -> Float[Array, "*n k"]:
        """What the network returns of the last layer's values at points."""
        if self.outputs is not None:
            values = self.outputs.unscale(values)
        if (axis := self.odd_axis) is not None:
            values = jnp.where(points[..., axis, None] < 0, -values, values)
        return values

    def config(self) -> dict:
        """The arguments that make this spec again, as JSON-able data."""
        config: dict[str, Any] = {
            "sizes": list(self.sizes),
            "inputs": self.inputs.ranges(),
            "outputs": None if self.outputs is None else self.outputs.ranges(),
            "bounded": self.bounded,
        }
        if self.odd is not None:
            config["odd"] = self.odd
        if self.hard is not None:
            # Its name only: code is not data.
            config["hard"] = getattr(self.hard, "__qualname__", repr(type(self.hard)))
        return config

    def built_in(
        self, points: Float[Array, "n d"], lam: Float[Array, "*p"]
    ) -> tuple[Float[Array, "n k"], Float[Array, "n k"]]:
        """What `hard` returns at n points: g and d."""
        one = functools.partial(pair, typing.cast(Hard, self.hard), k=self.sizes[-1])
        g, d = jax.vmap(one, (0, None))(points, lam)
        return g, d

    @classmethod
    def from_config(cls, config: dict) -> "MainNetSpec":
        """The inverse of `config`.

        Raises:
            ValueError: `config` is not what the method of that name returns.
        """
        try:
            if "hard" in config:
                raise ValueError(
                    f"hard = {config['hard']}, a function, expected a network of that "
                    "shape to take it from"
                )
            inputs, outputs = Box(**config["inputs"]), config["outputs"]
            made = {"inputs": inputs, "outputs": outputs and Box(**outputs)}
            return cls(**config | made | {"sizes": tuple(config["sizes"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"config = {config}, expected that of a spec") from error

    @checked
    def init(self, *, key: PRNGKeyArray) -> "MainNet":
        """A main network with Glorot-normal weights and zero biases.

        Glorot and Bengio (2010), AISTATS.
        """
        weights, biases = [], []
        keys = jr.split(key, len(self.shapes))
        for k, (out, size) in zip(keys, self.shapes, strict=True):
            weights.append(jr.normal(k, (out, size)) * math.sqrt(2 / (out + size)))
            biases.append(jnp.zeros((out,)))
        return MainNet(tuple(weights), tuple(biases), self)

    def unflatten(self, theta: Float[ArrayLike, " P"]) -> "MainNet":
        """The main network whose weights are `theta`: W₁, b₁, W₂, b₂, …, row by row."""
        theta = checks.array("theta", theta, self.size)
        parts = jax.lax.split(theta, [n for m, k in self.shapes for n in (m * k, m)])
        rows = zip(parts[::2], self.shapes, strict=True)
        weights = tuple(row.reshape(shape) for row, shape in rows)
        return MainNet(weights, tuple(parts[1::2]), self)


class MainNet(eqx.Module):
    """A tanh network over coordinates, in physical units.

    Its weights are usually generated by a hypernetwork (paper eq. 2), but it is an
    ordinary `eqx.Module`: it can be trained, jitted, differentiated and saved.
    Applied to one point of shape (d,) it returns shape (), or (k,) for k > 1 outputs.
    It computes in the precision of its weights, whatever that of the point and
    whatever JAX's mode: in float64 even where `jax_enable_x64` is off.

    Args:
        weights: matrices W₁, W₂, …, of the shapes that `spec` has.
        biases: vectors b₁, b₂, …, in the same precision.
        spec: the shape of the network.
        lam: λ, shape (p,), for a spec with conditions built in; `model(lam)` sets it.

    Raises:
        ValueError: weights and biases are of several precisions; of a call, a point is
            outside a bounded domain (checked when it is not being traced), or λ is
            missing.

    >>> spec = MainNetSpec((2, *6 * (8,), 1), Box(t=(0, 1), x=(-1, 1)))
    >>> net = spec.init(key=jr.key(0))
    >>> net(jnp.array([0.5, 0.0])).shape
    ()
    """

    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, " _"], ...]
    spec: MainNetSpec = eqx.field(static=True)
    lam: Float[Array, " p"] | None = None

    @checked
    def __init__(
        self,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike],
        spec: MainNetSpec,
        lam: Float[ArrayLike, " p"] | None = None,
    ):
        self.lam = None if lam is None else jnp.asarray(lam)
        self.weights = _arrays("weights", weights, spec.shapes)
        self.biases = _arrays("biases", biases, [shape[:1] for shape in spec.shapes])
        self.spec = spec
        kinds = sorted({str(a.dtype) for a in (*self.weights, *self.biases)})
        if len(kinds) > 1:
            raise ValueError(f"weights and biases are {kinds}, expected one type")

    @property
    def dtype(self) -> jnp.dtype:
        """The floating-point type of the weights, in which the network computes."""
        return self.weights[0].dtype

    def __call__(self, point: Float[ArrayLike, " d"]) -> Float[Array, "..."]:
        with precision(self.dtype):
            point = self._checked(checks.array("point", point, "...", empty=True))
            return _value(self, point) if self.plain else self.value(point)

    # Without these `jax.vmap` and its like write out all shapes to have a name for the
    # network, which takes longer than to evaluate it.
    @property
    def __name__(self) -> str:
        return "MainNet"

    @property
    def __code__(self) -> types.CodeType:
        return type(self).value.__code__

    @property
    def plain(self) -> bool:
        """Whether it is only arrays and shapes, so that one program stays right.

        Code that is built in may read what changes.
        """
        return self.spec.hard is None

    def _checked(self, point: Float[Array, "..."]) -> Float[Array, " d"]:
        if point.shape != (self.spec.sizes[0],):
            raise ValueError(
                f"point has shape {point.shape}, expected ({self.spec.sizes[0]},): "
                f"{', '.join(self.spec.inputs.names)}; use jax.vmap for many points"
            )
        if self.spec.bounded:
            self.spec.inputs.point(point)
        return point.astype(self.dtype)

    def value(self, point: Float[Array, " d"]) -> Float[Array, "..."]:
        """The same as a call, without checks, of a point in its precision."""
        h = self.spec.scale(point)
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = jnp.tanh(jax.lax.dot(w, h) + b)
        out = jax.lax.dot(self.weights[-1], h) + self.biases[-1]
        out = self.spec.unscale(out, point)
        if self.spec.hard is not None:
            g, d = self.spec.built_in(point[None], self.known_lam())
            out = g[0] + d[0] * out
        return out[0] if self.spec.sizes[-1] == 1 else out

    def known_lam(self) -> Float[Array, "*p"]:
        """λ as functions of a problem get it.

        Raises:
            ValueError: the network has none.
        """
        if self.lam is None:
            raise ValueError("lam = None, expected the λ of this network: model(lam)")
        lam = self.lam.astype(self.dtype)
        return lam[0] if len(lam) == 1 else lam

    def replaced(self, theta: Float[Array, " P"]) -> "MainNet":
        """The same network with other weights."""
        net = self.spec.unflatten(theta)
        return MainNet(net.weights, net.biases, self.spec, self.lam)

    def at(self, lam: Float[Array, " p"]) -> "MainNet":
        """The same network for another λ."""
        return MainNet(self.weights, self.biases, self.spec, lam)

    def flatten(self) -> Float[Array, " P"]:
        """All weights as one vector θ, the inverse of `MainNetSpec.unflatten`."""
        pairs = zip(self.weights, self.biases, strict=True)
        with precision(self.dtype):
            return jnp.concatenate([a for w, b in pairs for a in (w.ravel(), b)])


# Typed at a prompt, and under `jax.vmap`, one call instead of one for each operation.
# In a larger program it is no call at all.
_value = jax.jit(MainNet.value, inline=True)


def pair(
    hard: Hard, point: Float[Array, " d"], lam: Float[Array, "*p"], *, k: int
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """G and d of conditions that are built in, one number for each of k outputs.

    Raises:
        ValueError: they are something else than a pair of numbers, or of k numbers.
    """
    value = hard(point, lam)
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f"hard(x, lam) = {value}, expected the pair (g, d)")
    g, d = (
        jnp.stack(part) if isinstance(part, tuple | list) else jnp.asarray(part)
        for part in value
    )
    if not {g.shape, d.shape} <= {(), (k,)}:
        raise ValueError(
            f"hard(x, lam) has shapes {g.shape}, {d.shape}, expected () or ({k},)"
        )
    g, d = (jnp.broadcast_to(part, (k,)).astype(point.dtype) for part in (g, d))
    return g, d


def precision(dtype: np.dtype) -> contextlib.AbstractContextManager:
    """Lets JAX compute in a floating-point type: in float64 whatever its mode.

    What runs in it can be differentiated outside of it in both directions, as long as
    no operation in it names a type. The `@` of matrices does, `jax.lax.dot` does not.
    """
    wide = dtype == np.float64 and jnp.result_type(float) != np.float64
    return jax.enable_x64(True) if wide else contextlib.nullcontext()


def in_float64(function: F) -> F:
    """A function that computes in float64 whatever JAX's mode."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return typing.cast(F, call)


def _arrays(
    name: str, values: Sequence[ArrayLike], shapes: Sequence[tuple[int, ...]]
) -> tuple[Array, ...]:
    if len(values) != len(shapes):
        raise ValueError(f"{name} has {len(values)} entries, expected {len(shapes)}")
    pairs = enumerate(zip(values, shapes, strict=True))
    return tuple(checks.array(f"{name}[{i}]", v, *shape) for i, (v, shape) in pairs)
