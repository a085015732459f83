"""The main network: the small one that is evaluated at every point."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .box import Box


@dataclasses.dataclass(frozen=True)
class MainNetSpec:
    """The shape of a main network: everything about it but its weights.

    Args:
        sizes: layer widths, inputs first, e.g. `(2, 8, 8, 8, 8, 8, 8, 1)`.
        inputs: range of every input, mapped to [-1, 1] before the first layer.
        outputs: range of every output, mapped from [-1, 1] after the last layer;
            None leaves outputs as they are.
        bounded: whether a point outside `inputs` is an error.
        odd: a coordinate in which the network is odd by construction: the layers see
            `|x|`, and their output takes the sign of x. Where the solution is known to
            be odd they need to learn only half of it, at no cost.

    Raises:
        ValueError: fewer than two sizes, a size below 1, ranges that do not fit, or
            an `odd` that is no coordinate with a symmetric range.

    >>> spec = MainNetSpec((2, *6 * (8,), 1), Box(t=(0, 1), x=(-1, 1)))
    >>> spec.size
    393
    """

    sizes: tuple[int, ...]
    inputs: Box
    outputs: Box | None = None
    bounded: bool = True
    odd: str | None = None

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes = {self.sizes}, expected two or more widths >= 1")
        if len(self.inputs) != self.sizes[0]:
            raise ValueError(
                f"inputs = {self.inputs}, expected {self.sizes[0]} axes, one an input"
            )
        if self.outputs is not None and len(self.outputs) != self.sizes[-1]:
            raise ValueError(
                f"outputs = {self.outputs}, expected {self.sizes[-1]} axes"
            )
        if self.odd is not None:
            low, high = self.inputs.ranges().get(self.odd, (0, 1))[:2]
            if low != -high or self.outputs is not None:
                raise ValueError(
                    f"odd = {self.odd!r}, expected an input with a range (-a, a), and "
                    "no range of outputs"
                )

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The shape (out, in) of every layer's weight."""
        pairs = zip(self.sizes[1:], self.sizes[:-1], strict=True)
        return [(out, size) for out, size in pairs]

    @property
    def size(self) -> int:
        """The number of weights and biases P."""
        return sum(out * size + out for out, size in self.shapes)

    @property
    def odd_axis(self) -> int | None:
        """Which input is the odd one."""
        return None if self.odd is None else self.inputs.names.index(self.odd)

    def scale(self, points: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """What the first layer sees: inputs in [-1, 1], an odd one by its size."""
        scaled = self.inputs.scale(points)
        if (axis := self.odd_axis) is None:
            return scaled
        x = scaled[..., axis]
        # Unlike jnp.abs, it has a slope at 0: the one from the right.
        return scaled.at[..., axis].set(2 * jnp.where(x < 0, -x, x) - 1)

    def config(self) -> dict:
        """The arguments that make this spec again, as JSON-able data."""
        config = {
            "sizes": list(self.sizes),
            "inputs": self.inputs.ranges(),
            "outputs": None if self.outputs is None else self.outputs.ranges(),
            "bounded": self.bounded,
        }
        return config if self.odd is None else {**config, "odd": self.odd}

    @classmethod
    def from_config(cls, config: dict) -> "MainNetSpec":
        """The inverse of `config`."""
        outputs = config["outputs"]
        return cls(
            tuple(config["sizes"]),
            Box(**config["inputs"]),
            None if outputs is None else Box(**outputs),
            config["bounded"],
            config.get("odd"),
        )

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

    def unflatten(self, theta: Float[Array, " P"]) -> "MainNet":
        """The main network whose weights are `theta`: W₁, b₁, W₂, b₂, …, row by row.

        Raises:
            ValueError: `theta` does not have shape (P,).
        """
        if theta.shape != (self.size,):
            raise ValueError(
                f"theta has shape {theta.shape}, expected ({self.size},) for {self}"
            )
        weights, biases, at = [], [], 0
        for out, size in self.shapes:
            weights.append(theta[at : at + out * size].reshape(out, size))
            at += out * size
            biases.append(theta[at : at + out])
            at += out
        return MainNet(tuple(weights), tuple(biases), self)


class MainNet(eqx.Module):
    """A tanh network over coordinates, in physical units.

    Its weights are usually generated by a hypernetwork (paper eq. 2), but it is an
    ordinary `eqx.Module`: it can be trained, jitted, differentiated and saved.
    Applied to one point of shape (d,) it returns shape (), or (k,) for k > 1 outputs.

    Raises:
        ValueError: the point has the wrong shape, or lies outside a bounded domain
            (checked when it is not being traced).

    >>> spec = MainNetSpec((2, *6 * (8,), 1), Box(t=(0, 1), x=(-1, 1)))
    >>> net = spec.init(key=jr.key(0))
    >>> net(jnp.array([0.5, 0.0])).shape
    ()
    """

    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, " _"], ...]
    spec: MainNetSpec = eqx.field(static=True)

    def __call__(self, point: Float[Array | np.ndarray, " d"]) -> Float[Array, "..."]:
        point = jnp.asarray(point)
        if point.shape != (self.spec.sizes[0],):
            raise ValueError(
                f"point has shape {point.shape}, expected ({self.spec.sizes[0]},): "
                f"{', '.join(self.spec.inputs.names)}; use jax.vmap for many points"
            )
        if self.spec.bounded and not isinstance(point, jax.core.Tracer):
            self.spec.inputs.point(point)
        h = self.spec.scale(point)
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = jnp.tanh(w @ h + b)
        out = self.weights[-1] @ h + self.biases[-1]
        if self.spec.outputs is not None:
            out = self.spec.outputs.unscale(out)
        if (axis := self.spec.odd_axis) is not None:
            out = jnp.where(point[axis] < 0, -out, out)
        return out[0] if self.spec.sizes[-1] == 1 else out

    def flatten(self) -> Float[Array, " P"]:
        """All weights as one vector θ, the inverse of `MainNetSpec.unflatten`."""
        pairs = zip(self.weights, self.biases, strict=True)
        return jnp.concatenate([a for w, b in pairs for a in (w.ravel(), b)])
