"""The paper's baselines: one network that takes λ as further inputs."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from . import checks
from .box import Box
from .mainnet import MainNet, MainNetSpec
from .model import AbstractModel


class ConcatPINN(AbstractModel):
    """A network of (point, λ), called like a HyperPINN.

    The first layer is linear in its inputs, so for a given λ its part W_λ λ is a
    constant: `model(lam)` adds it to the bias and returns a plain main network. What
    is evaluated at every point does no work for λ, and costs no more than a network
    without it.

    Args:
        main: the shape of the network without λ's inputs.
        parameters: names, ranges and scaling of λ.
        augmented: whether the last layer also has outputs for dλ/dt, as the counts of
            the paper's Lorenz baselines tell (6 outputs for 3 states and 3
            parameters). The right answer is known: λ is constant. These weights start
            at the exact zero, no loss moves them, and `model(lam)` leaves them out.
        key: a JAX random key.

    Raises:
        ValueError: `augmented` is not a bool, or `key` no key.
        TypeError: `main` or `parameters` is something else.

    >>> main = MainNetSpec((2, *6 * (8,), 1), Box(t=(0, 1), x=(-1, 1)))
    >>> small = ConcatPINN(main, Box(nu=(1e-3, 1e-1, "log")), key=jr.key(0))
    >>> small.net.flatten().size + small.lam_weight.size
    401
    >>> small(0.01)(jnp.array([0.5, 0.25])).shape
    ()
    """

    net: MainNet
    lam_weight: Float[Array, "out w"]
    lam_slope: tuple[Float[Array, "p in"], Float[Array, " p"]] | None
    parameters: Box = eqx.field(static=True)

    def __init__(
        self,
        main: MainNetSpec,
        parameters: Box,
        *,
        augmented: bool = False,
        key: PRNGKeyArray,
    ):
        checks.instance("main", main, MainNetSpec)
        checks.instance("parameters", parameters, Box)
        checks.choice("augmented", augmented, (True, False))
        checks.random_key("key", key)
        key, lam_key = jr.split(key)
        self.net, self.parameters = main.init(key=key), parameters
        out, size = main.shapes[0]
        fan = out + size + parameters.width
        self.lam_weight = jr.normal(lam_key, (out, parameters.width)) * math.sqrt(
            2 / fan
        )
        p = len(parameters)
        zeros = (jnp.zeros((p, main.sizes[-2])), jnp.zeros(p))
        self.lam_slope = zeros if augmented else None

    def generate(self, scaled: Float[ArrayLike, " p"]) -> MainNet:
        scaled = checks.array("scaled", scaled, len(self.parameters))
        seen = self.parameters.embed(scaled.astype(self.net.dtype))
        bias = self.net.biases[0] + jax.lax.dot(self.lam_weight, seen)
        return eqx.tree_at(lambda net: net.biases[0], self.net, bias)

    def config(self) -> dict:
        config = {
            "class": "ConcatPINN",
            "main": self.net.spec.config(),
            "parameters": self.parameters.ranges(),
        }
        return config if self.lam_slope is None else {**config, "augmented": True}
