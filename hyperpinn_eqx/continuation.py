"""Continuation in λ, and distillation of its path into a hypernetwork."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .box import Box
from .gauss_newton import gauss_newton
from .losses import Loss
from .mainnet import MainNet
from .model import AbstractModel
from .rows import Item, PINNRows
from .training import FitResult, History, fit


class SingleNet(AbstractModel):
    """One main network for whatever λ: the family that continuation moves along λ."""

    net: MainNet
    parameters: Box = eqx.field(static=True)

    def generate(self, scaled: Float[Array, " p"]) -> MainNet:
        return self.net

    def config(self) -> dict:
        return {"class": "SingleNet", "main": self.net.spec.config()}


def follow(
    net: MainNet,
    rows: PINNRows,
    lams: Float[Array, "L p"],
    *,
    key: PRNGKeyArray,
    steps: int = 30,
    first: int = 150,
    redraw: int = 10,
    progress: bool = True,
) -> FitResult[Float[Array, "L P"]]:
    """The main network's best weights θ*(λ) along a path of λ.

    Each λ is solved by Gauss-Newton, warm-started from its neighbour, so that θ* stays
    on one smooth branch although many other weights are as good.

    Args:
        net: the network to start from.
        rows: the loss.
        lams: the path, easy end first.
        key: a JAX random key.
        steps: Gauss-Newton steps for each λ.
        first: steps for the first λ, which has no neighbour.
        redraw: steps on one draw of points.
        progress: whether to show a bar.

    Returns:
        A `FitResult` whose model is the path θ*, shape (L, P), and whose history holds
        the loss at each λ.
    """
    box = rows.problem.parameters
    model: AbstractModel = SingleNet(net=net, parameters=box)
    path: list[Array] = []
    history = History(len(lams), "continuation", progress)
    for i, lam in enumerate(lams):

        def draw(
            model: AbstractModel, key: PRNGKeyArray, here: Array = lam[None]
        ) -> tuple[Array, Item]:
            return here, rows.draw(model, here, key)

        result = gauss_newton(
            model,
            rows,
            draw,
            steps=steps if path else first,
            redraw=redraw,
            damping=1e-4 if path else 1e-1,
            floor=1e-9,
            rank=net.spec.size,
            key=jr.fold_in(key, i),
            progress=False,
        )
        model = result.model
        path.append(model(lam).flatten())
        history.add(model, 1, {"total": float(result.history["total"][-1])})
    return history.result(jnp.stack(path))


def distill(
    model: AbstractModel,
    lams: Float[Array, "L p"],
    path: Float[Array, "L P"],
    *,
    key: PRNGKeyArray,
    steps: int = 20_000,
    rate: float = 3e-3,
    progress: bool = True,
) -> FitResult:
    """Regresses a hypernetwork onto weights θ*(λ) found by `follow`.

    The head's bias starts at the mean of the path, so that the hypernetwork has to
    learn only how θ* turns with λ.
    """
    model = eqx.tree_at(lambda m: m.theta0, model, jnp.mean(path, axis=0))

    def loss(model: AbstractModel, key: PRNGKeyArray) -> Loss:
        found = jax.vmap(lambda lam: model(lam).flatten())(lams)
        return Loss({"weights": jnp.mean((found - path) ** 2)})

    return fit(
        model,
        loss,
        optax.adam(optax.cosine_decay_schedule(rate, steps)),
        steps=steps,
        key=key,
        chunk=1000,
        progress=progress,
        what="distillation",
    )
