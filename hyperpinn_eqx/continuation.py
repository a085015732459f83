"""Continuation in λ, and distillation of its path into a hypernetwork."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .box import Box
from .gauss_newton import gauss_newton
from .hypernet import HyperPINN
from .journal import Journal
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
    what: str = "continuation",
    journal: Journal | None = None,
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
        what: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every λ.

    Returns:
        A `FitResult` whose model is the path θ*, shape (L, P), and whose history holds
        the loss at each λ.
    """
    box = rows.problem.parameters
    path = jnp.zeros((len(lams), net.spec.size))
    history = History(len(lams), what, progress, path, journal)
    path = history.state
    if history.done:
        net = net.spec.unflatten(path[history.done - 1])
    model: AbstractModel = SingleNet(net=net, parameters=box)
    for i in range(history.done, len(lams)):
        lam = lams[i]

        def draw(
            model: AbstractModel, key: PRNGKeyArray, here: Array = lam[None]
        ) -> tuple[Array, Item]:
            return here, rows.draw(model, here, key)

        result = gauss_newton(
            model,
            rows,
            draw,
            steps=steps if i else first,
            redraw=redraw,
            damping=1e-4 if i else 1e-1,
            floor=1e-10,
            rank=net.spec.size,
            key=jr.fold_in(key, i),
            progress=False,
        )
        model = result.model
        path = path.at[i].set(model(lam).flatten())
        history.add(model, 1, {"total": float(result.history["total"][-1])})
        history.keep(path)
    return history.result(path)


def distill(
    model: HyperPINN,
    lams: Float[Array, "L p"],
    path: Float[Array, "L P"],
    *,
    key: PRNGKeyArray,
    steps: int = 20_000,
    rate: float = 3e-3,
    progress: bool = True,
) -> FitResult:
    """Makes a hypernetwork reproduce weights θ*(λ) found by `follow`.

    The best head is known beforehand: θ₀ is the mean of the path, and the columns of W
    are its leading singular vectors. What is left to learn are the few numbers z(λ)
    with which each λ combines them; the trunk is regressed onto these by Adam.

    Args:
        model: an untrained HyperPINN.
        lams: the λ of the path, shape (L, p).
        path: the weights θ*, shape (L, P).
        key: a JAX random key.
        steps: Adam steps.
        rate: the first learning rate of a cosine schedule.
        progress: whether to show a bar.

    Returns:
        A `FitResult` with the model, and the history of the loss of z.
    """
    theta0 = jnp.mean(path, axis=0)
    u, s, vt = jnp.linalg.svd(path - theta0[None], full_matrices=False)
    modes = min(model.head.shape[1], len(s))
    # The trunk ends in tanh: z should stay well inside (-1, 1).
    size = jnp.max(jnp.abs(u[:, :modes]), axis=0) / 0.7
    z = u[:, :modes] / size[None]
    head = (
        jnp.zeros_like(model.head)
        .at[:, :modes]
        .set(vt[:modes].T * (s[:modes] * size)[None])
    )
    model = eqx.tree_at(lambda m: (m.head, m.theta0), model, (head, theta0))
    scaled = jax.vmap(model.parameters.scale)(lams)

    def loss(trunk: tuple, key: PRNGKeyArray) -> Loss:
        family = eqx.tree_at(lambda m: m.trunk, model, trunk)
        found = jax.vmap(family.features)(scaled)[:, :modes]
        return Loss({"features": jnp.mean((found - z) ** 2)})

    result = fit(
        model.trunk,
        loss,
        optax.adam(optax.cosine_decay_schedule(rate, steps)),
        steps=steps,
        key=key,
        chunk=1000,
        progress=progress,
        what="distillation",
    )
    trained = eqx.tree_at(lambda m: m.trunk, model, result.model)
    return FitResult(trained, result.history, result.seconds)
