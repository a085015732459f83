"""Damped Gauss-Newton: the loop around the step that `kernel.py` solves for."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .journal import Journal
from .kernel import Row, linearise, solve
from .model import AbstractModel, dtype_of
from .training import FitResult, History, Watch


def gauss_newton(
    model: AbstractModel,
    row: Row,
    draw: Callable[[AbstractModel, PRNGKeyArray], tuple[Float[Array, "M p"], PyTree]],
    *,
    steps: int,
    key: PRNGKeyArray,
    redraw: int = 8,
    damping: float = 1e-2,
    floor: float = 1e-8,
    rank: int = 64,
    frozen: Callable[[AbstractModel], PyTree] | None = None,
    progress: bool = True,
    what: str = "gauss-newton",
    journal: Journal | None = None,
    watch: Watch | None = None,
) -> FitResult:
    """Trains a model by damped Gauss-Newton (Levenberg 1944, Marquardt 1963).

    Minimises the mean over λ of Σ row². Each step is judged on the batch that made it,
    by the ratio of the loss's fall to the fall that the linear model promised. The
    damping μ rises until the loss falls, and then follows that ratio (Nielsen 1999,
    IMM-REP-1999-05).

    Args:
        model: a HyperPINN or a baseline, with float64 weights.
        row: one residual, already multiplied by its weight.
        draw: from a model and a key to M values of λ, shape (M, p), and a PyTree of
            items whose arrays start with shape (M, K): K rows for each λ. It is called
            as it is: compile it yourself.
        steps: how many steps to try.
        key: a JAX random key.
        redraw: steps on one batch before the next is drawn.
        damping: the first μ.
        floor: the least μ; smaller values let a step overfit its batch.
        rank: rows kept for each λ. With many λ a part of them is enough; with one or a
            few λ keep as many as the main network has weights, or steps stall.
        frozen: picks what is not trained, e.g. `lambda m: m.trunk`.
        progress: whether to show a bar.
        what: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every
            step; the result is the same to the bit as without a stop.
        watch: see `Watch`.

    Returns:
        A `FitResult` with the history of "total" and "damping".

    Raises:
        ValueError: the weights are not float64, or the journal's arrays do not fit.
        TrainingStopped: the loss of a batch is not finite.
        Stopped: a stop was requested of the journal, and everything is saved.
    """
    if dtype_of(model) != jnp.float64:
        raise ValueError(
            f"model has {dtype_of(model)} weights, expected float64: Gauss-Newton "
            "squares condition numbers; set jax_enable_x64 before making the model"
        )
    trained = jax.tree.map(eqx.is_inexact_array, model)
    if frozen is not None:
        trained = eqx.tree_at(frozen, trained, replace_fn=lambda _: False)
    # Only a journal has to know the shapes of a batch beforehand.
    batch = eqx.filter_eval_shape(draw, model, key) if journal else (None, None)
    state = (model, 0.0, damping, *batch)
    history = History(steps, what, progress, state, journal, watch)
    model, loss, damping, lams, items = history.state
    for i in range(history.done, steps):
        step_key = jr.fold_in(key, i)
        if i % redraw == 0:
            lams, items = draw(model, step_key)
            loss = float(_total(row, model, lams, items))
        system = linearise(row, rank, trained, model, lams, items, step_key)
        for rise in (2, 4, 8, 16, 32, 64):
            # As an array: a Python float would be compiled in.
            trial, promised = solve(trained, model, lams, system, jnp.asarray(damping))
            after = float(_total(row, trial, lams, items))
            if after < loss:
                gain = (loss - after) / float(promised)
                damping *= min(max(1 / 3, 1 - (2 * gain - 1) ** 3), 2)
                model, loss, damping = trial, after, max(damping, floor)
                break
            damping *= rise
        history.add(model, 1, {"total": loss, "damping": damping})
        history.keep((model, loss, damping, lams, items))
    return history.result(model)


@eqx.filter_jit
def _total(
    row: Row, model: AbstractModel, lams: Array, items: PyTree
) -> Float[Array, ""]:
    def one(pair: tuple) -> Array:
        lam, items = pair
        net = model(lam)
        return jnp.sum(jax.vmap(lambda item: row(net, lam, item))(items) ** 2)

    return jnp.mean(jax.lax.map(one, (lams, items)))
