"""Other ways to let λ in: one main network, a part of whose weights λ moves.

Each of these models holds an ordinary main network with weights W and biases b, the
same for every λ. A small network of λ makes a few numbers m(λ), and they move

- `FiLM`: the scale and the shift of every hidden unit;
- `LowRank`: every layer, along a few directions;
- `LastLayer`: the last layer alone.

Called with λ, each returns a plain main network, with m(λ) folded into its weights. A
`HyperPINN` moves all of them, and a `ConcatPINN` only the first bias.
"""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .. import _arguments as checks
from .._arguments import Count, checked
from ..box import Box
from .hyper import Trunk
from .main import MainNet, MainNetSpec
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

    @checked
    def __init__(
        self,
        main: MainNetSpec,
        parameters: Box,
        *,
        augmented: bool = False,
        key: PRNGKeyArray,
    ):
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


# How large m(λ) starts, next to what it is added to: all λ start alike, but the
# gradient already tells them apart.
_START = 0.2


class Modulator(eqx.Module):
    """The small network m(λ) = H z(λ): a trunk, then a linear head."""

    trunk: Trunk
    head: Float[Array, "m z"]

    def __init__(
        self, parameters: Box, hidden: Sequence[int], size: int, *, key: PRNGKeyArray
    ):
        *keys, head_key = jr.split(key, 2 * len(hidden) + 1)
        self.trunk = Trunk(parameters, hidden, keys[::2], keys[1::2])
        self.head = jr.normal(head_key, (size, hidden[-1])) * (
            _START / math.sqrt(hidden[-1])
        )

    def __call__(self, scaled: Float[ArrayLike, " p"]) -> Float[Array, " m"]:
        return jax.lax.dot(self.head, self.trunk(scaled))


class FiLM(AbstractModel):
    """λ scales and shifts every hidden unit, before its tanh.

    Layer by layer, h ← tanh(γ(λ) ⊙ (W h + b) + β(λ)) with γ = 1 + m₁(λ) and β = m₂(λ):
    feature-wise linear modulation (Perez et al. 2018, AAAI). Folded, a layer has the
    weights diag(γ) W and the biases γ ⊙ b + β. The last layer stays as it is.

    Args:
        main: the shape of the main network.
        parameters: names, ranges and scaling of λ.
        hidden: widths of the network of λ, e.g. `(16, 16)`.
        key: a JAX random key.

    Raises:
        ValueError: `main` has no hidden layer.

    >>> main = MainNetSpec((2, 8, 8, 1), Box(t=(0, 1), x=(-1, 1)))
    >>> model = FiLM(main, Box(nu=(1e-3, 1e-1, "log")), (16,), key=jr.key(0))
    >>> model(0.01)(jnp.array([0.5, 0.25])).shape
    ()
    """

    net: MainNet
    modulator: Modulator
    parameters: Box = eqx.field(static=True)

    @checked
    def __init__(
        self,
        main: MainNetSpec,
        parameters: Box,
        hidden: Sequence[Count],
        *,
        key: PRNGKeyArray,
    ):
        net_key, key = jr.split(key)
        units = sum(main.sizes[1:-1])
        if not units:
            raise ValueError(f"main = {main}, expected one with a hidden layer")
        self.modulator = Modulator(parameters, hidden, 2 * units, key=key)
        self.net, self.parameters = main.init(key=net_key), parameters

    def generate(self, scaled: Float[ArrayLike, " p"]) -> MainNet:
        sizes = self.net.spec.sizes[1:-1]
        parts = jax.lax.split(self.modulator(scaled), sizes + sizes)
        moves = zip(parts[: len(sizes)], parts[len(sizes) :], strict=True)
        weights, biases = list(self.net.weights), list(self.net.biases)
        for i, (scale, beta) in enumerate(moves):
            gamma = 1 + scale
            weights[i] = gamma[:, None] * weights[i]
            biases[i] = gamma * biases[i] + beta
        return MainNet(weights, biases, self.net.spec)

    def config(self) -> dict:
        return _config(self)


class LowRank(AbstractModel):
    """λ moves every layer along a few directions, each a matrix of rank one.

    With the bias as one more column of the weights, [W b] + U diag(s(λ)) Vᵀ, where U
    and V are trained and s = m(λ): a low-rank hypernetwork (Cho et al. 2023, NeurIPS;
    here added to a full W, as low-rank adaptation does).

    Args:
        main: the shape of the main network.
        parameters: names, ranges and scaling of λ.
        hidden: widths of the network of λ, e.g. `(16, 16)`.
        rank: how many directions every layer has.
        key: a JAX random key.

    >>> main = MainNetSpec((2, 8, 8, 1), Box(t=(0, 1), x=(-1, 1)))
    >>> nu = Box(nu=(1e-3, 1e-1, "log"))
    >>> model = LowRank(main, nu, (16,), rank=2, key=jr.key(0))
    >>> model.modulator.head.shape
    (6, 16)
    """

    net: MainNet
    left: tuple[Float[Array, "_ r"], ...]
    right: tuple[Float[Array, "_ r"], ...]
    modulator: Modulator
    parameters: Box = eqx.field(static=True)

    @checked
    def __init__(
        self,
        main: MainNetSpec,
        parameters: Box,
        hidden: Sequence[Count],
        *,
        rank: Count,
        key: PRNGKeyArray,
    ):
        net_key, left_key, right_key, key = jr.split(key, 4)
        layers = len(main.shapes)
        self.modulator = Modulator(parameters, hidden, layers * rank, key=key)
        self.net, self.parameters = main.init(key=net_key), parameters
        # With s = 1 the products U Vᵀ would be as large as Glorot's weights.
        left, right = jr.split(left_key, layers), jr.split(right_key, layers)
        self.left = tuple(
            jr.normal(k, (out, rank)) / math.sqrt(rank)
            for k, (out, _) in zip(left, main.shapes, strict=True)
        )
        self.right = tuple(
            jr.normal(k, (size + 1, rank)) * math.sqrt(2 / (out + size))
            for k, (out, size) in zip(right, main.shapes, strict=True)
        )

    def generate(self, scaled: Float[ArrayLike, " p"]) -> MainNet:
        each = jnp.split(self.modulator(scaled), len(self.left))
        moves = [
            jax.lax.dot(u * s[None], v.T)
            for u, s, v in zip(self.left, each, self.right, strict=True)
        ]
        pairs = [_columns(move) for move in moves]
        weights = [w + d for w, (d, _) in zip(self.net.weights, pairs, strict=True)]
        biases = [b + d for b, (_, d) in zip(self.net.biases, pairs, strict=True)]
        return MainNet(weights, biases, self.net.spec)

    def config(self) -> dict:
        return _config(self) | {"rank": self.left[0].shape[1]}


class LastLayer(AbstractModel):
    """λ moves the weights and the bias of the last layer, and nothing else.

    u(x; λ) = Σ c_k(λ) φ_k(x) + c_0(λ): functions φ of the point that all λ share, and
    coefficients c = [W b] + m(λ) that depend on λ. As in a DeepONet, whose trunk is φ
    and whose branch is c (Lu et al. 2021, Nat. Mach. Intell. 3).

    Args:
        main: the shape of the main network.
        parameters: names, ranges and scaling of λ.
        hidden: widths of the network of λ, e.g. `(16, 16)`.
        key: a JAX random key.

    >>> main = MainNetSpec((2, 8, 8, 1), Box(t=(0, 1), x=(-1, 1)))
    >>> model = LastLayer(main, Box(nu=(1e-3, 1e-1, "log")), (16,), key=jr.key(0))
    >>> model.modulator.head.shape
    (9, 16)
    """

    net: MainNet
    modulator: Modulator
    parameters: Box = eqx.field(static=True)

    @checked
    def __init__(
        self,
        main: MainNetSpec,
        parameters: Box,
        hidden: Sequence[Count],
        *,
        key: PRNGKeyArray,
    ):
        net_key, key = jr.split(key)
        out, size = main.shapes[-1]
        self.modulator = Modulator(parameters, hidden, out * (size + 1), key=key)
        self.net, self.parameters = main.init(key=net_key), parameters

    def generate(self, scaled: Float[ArrayLike, " p"]) -> MainNet:
        out, size = self.net.spec.shapes[-1]
        moves = self.modulator(scaled).reshape(out, size + 1)
        # As every weight starts: by Glorot.
        move, shift = _columns(moves * math.sqrt(2 / (out + size)))
        (*weights, w), (*biases, b) = self.net.weights, self.net.biases
        spec = self.net.spec
        return MainNet((*weights, w + move), (*biases, b + shift), spec)

    def config(self) -> dict:
        return _config(self)


def _columns(move: Float[Array, "_ _"]) -> tuple[Array, Array]:
    """The part of a move that is the weights', and that of the bias."""
    weights, bias = jax.lax.split(move, [move.shape[1] - 1, 1], axis=1)
    return weights, bias.ravel()


def _config(model: FiLM | LowRank | LastLayer) -> dict:
    return {
        "class": type(model).__name__,
        "main": model.net.spec.config(),
        "parameters": model.parameters.ranges(),
        "hidden": model.modulator.trunk.hidden,
    }
