"""The hypernetwork: λ in, the weights of a main network out (paper eq. 2)."""

import math
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .. import _arguments as checks
from .._arguments import Count, checked
from ..box import Box
from .main import MainNet, MainNetSpec, precision
from .model import AbstractModel

Init = Literal["split", "common", "hyperfan", "plain"]
# The share of the generated weights' variance that W carries; θ₀ has the rest.
_SHARE = {"split": 0.5, "common": 0.05, "hyperfan": 1.0}


class Trunk(eqx.Module):
    """Layers with tanh that turn λ into features z(λ).

    Without biases an odd trunk gives z = 0 at the centre of the range of λ: what is
    made of z would be zero there.

    Args:
        parameters: names, ranges and scaling of λ.
        hidden: widths of the layers.
        weight_keys: a JAX random key for the weights of each layer.
        bias_keys: one for its biases.
        gain: of the weights, 1 is Glorot's.
        reach: of the biases, 1 is the usual one.
    """

    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, " _"], ...]
    parameters: Box = eqx.field(static=True)

    def __init__(
        self,
        parameters: Box,
        hidden: Sequence[int],
        weight_keys: Sequence[PRNGKeyArray],
        bias_keys: Sequence[PRNGKeyArray],
        *,
        gain: float = 1.0,
        reach: float = 1.0,
    ):
        self.parameters = parameters
        shapes = list(zip(hidden, (parameters.width, *hidden[:-1]), strict=True))
        self.weights = tuple(
            jr.normal(k, shape) * (gain * math.sqrt(2 / sum(shape)))
            for k, shape in zip(weight_keys, shapes, strict=True)
        )
        self.biases = tuple(
            jr.uniform(k, (n,), minval=-1, maxval=1) * (reach / math.sqrt(m))
            for k, (n, m) in zip(bias_keys, shapes, strict=True)
        )

    @property
    def hidden(self) -> list[int]:
        """The widths of the layers."""
        return [b.size for b in self.biases]

    def __call__(self, scaled: Float[ArrayLike, " p"]) -> Float[Array, " z"]:
        """The features z(λ) for λ scaled to [-1, 1]."""
        dtype = self.weights[0].dtype
        with precision(dtype):
            scaled = checks.array("scaled", scaled, len(self.parameters))
            z = self.parameters.embed(scaled.astype(dtype))
            for w, b in zip(self.weights, self.biases, strict=True):
                z = jnp.tanh(jax.lax.dot(w, z) + b)
            return z


class HyperPINN(AbstractModel):
    """A hypernetwork together with the main network that it generates.

    The trunk, `model.trunk`, turns the scaled λ into features z(λ), all layers with
    tanh; a linear head turns the features into the main network's weights,
    θ(λ) = θ₀ + W z(λ), where θ₀ is the head's bias. (Belbute-Peres, Chen and Sha
    2021, eq. 2.)

    Args:
        main: the shape of the main network.
        parameters: names, ranges and scaling of λ.
        hidden: widths of the trunk, e.g. `(32, 32, 32, 16)`.
        init: how the generated weights start.

            - `"split"`: θ₀ is an ordinary Glorot initialisation and W follows
              hyperfan-in (Chang, Flokas and Lipson 2020), each with half the
              variance: at every λ the main network starts as if initialised alone,
              and the networks of different λ start alike.
            - `"common"`: a twentieth of the variance for W, and a trunk with half the
              usual weights and no biases: all λ start on much the same network, and
              z is nearly linear in λ. Where data come from few λ, this keeps θ(λ)
              from bending or jumping between them, which no loss would see.
            - `"hyperfan"`: θ₀ = 0 and W carries all the variance.
            - `"plain"`: every layer of the hypernetwork is initialised by Glorot as
              in an ordinary network; what it generates is too small.
        key: a JAX random key.

    >>> main = MainNetSpec((2, *6 * (8,), 1), Box(t=(0, 1), x=(-1, 1)))
    >>> nu = Box(nu=(1e-3, 1e-1, "log"))
    >>> model = HyperPINN(main, nu, (32, 32, 32, 16), key=jr.key(0))
    >>> sum(a.size for a in jax.tree.leaves(model))
    9385
    >>> model(0.01)(jnp.array([0.5, 0.25])).shape
    ()
    """

    trunk: Trunk
    head: Float[Array, "P z"]
    theta0: Float[Array, " P"]
    main: MainNetSpec = eqx.field(static=True)
    parameters: Box = eqx.field(static=True)

    @checked
    def __init__(
        self,
        main: MainNetSpec,
        parameters: Box,
        hidden: Sequence[Count],
        *,
        init: Init = "split",
        key: PRNGKeyArray,
    ):
        self.main, self.parameters = main, parameters
        trunk_key, bias_key, head_key, main_key, lam_key = jr.split(key, 5)

        self.trunk = Trunk(
            parameters,
            hidden,
            list(jr.split(trunk_key, len(hidden))),
            list(jr.split(bias_key, len(hidden))),
            gain=0.5 if init == "common" else 1.0,
            reach=0.0 if init == "common" else 1.0,
        )

        normal = jr.normal(head_key, (main.size, hidden[-1]))
        if init == "plain":
            self.head = normal * math.sqrt(2 / sum(normal.shape))
            self.theta0 = jnp.zeros((main.size,))
            return
        # Hyperfan-in, with the second moment of z measured instead of assumed: the
        # generated weight of a layer gets the variance that Glorot would give it.
        lams = jr.uniform(lam_key, (256, len(parameters)), minval=-1, maxval=1)
        power = jnp.mean(jnp.sum(jax.vmap(self.trunk)(lams) ** 2, axis=1))
        share = _SHARE[init]
        self.head = normal * (_glorot(main) * jnp.sqrt(share / power))[:, None]
        self.theta0 = main.init(key=main_key).flatten() * math.sqrt(1 - share)

    def generate(self, scaled: Float[ArrayLike, " p"]) -> MainNet:
        theta = jax.lax.dot(self.head, self.trunk(scaled)) + self.theta0
        return self.main.unflatten(theta)

    def config(self) -> dict:
        return {
            "class": "HyperPINN",
            "main": self.main.config(),
            "parameters": self.parameters.ranges(),
            "hidden": self.trunk.hidden,
        }


def _glorot(main: MainNetSpec) -> Float[Array, " P"]:
    """The standard deviation that Glorot gives to each entry of θ; 0 for biases."""
    deviation = [
        jnp.concatenate(
            [jnp.full(out * size, math.sqrt(2 / (out + size))), jnp.zeros(out)]
        )
        for out, size in main.shapes
    ]
    return jnp.concatenate(deviation)
