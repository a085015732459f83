"""Training by any optimiser of Optax: chunks of steps under `lax.scan`."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from .. import _blocks as blocks
from .. import _programs as programs
from .._arguments import Count, checked
from ..loss import AbstractLeastSquares, Loss
from ..networks.main import precision
from ..networks.model import dtype_of
from .journal import Journal
from .result import FitResult, Model
from .run import AbstractOptimiser, Callback, Fault, run
from .validation import check_loss, first_fault, largest, trainable


@checked
def fit(
    model: Model,
    loss: AbstractLeastSquares | Callable[[Model, PRNGKeyArray], Loss],
    optimiser: optax.GradientTransformation | optax.MultiSteps,
    *,
    steps: Count,
    key: PRNGKeyArray,
    chunk: Count = 500,
    progress: bool = True,
    name: str = "fit",
    journal: Journal | None = None,
    callback: Callback | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> FitResult[Model]:
    """Trains a model by any Optax optimiser.

    Args:
        model: any Equinox module, with weights of one floating-point type.
        loss: `PINNLoss` or the like, which draws a new batch at every step; or any
            function of a model and a key that returns a `Loss` in the precision of the
            weights.
        optimiser: an Optax optimiser, with its schedule. One that needs the loss, such
            as `optax.lbfgs()` for its line search, gets that of the step's own key.
        steps: how many updates to make.
        key: a JAX random key.
        chunk: steps per compiled chunk; progress and history move by chunks.
        progress: whether to show a bar with loss terms, speed and time left.
        name: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every
            chunk; the result is the same to the bit as without a stop.
        callback: called after every chunk, with the model and the seconds so far; it
            returns a dictionary of more entries for the history. With {"stop": True}
            among them the training ends, and its result is returned as usual.
        mesh: devices, with an axis "lam", "points" or both. The λ of a batch and the
            points of each are split over them, see `shard`; the result is that of one
            device to round-off.

    Returns:
        A `FitResult`; its history holds the mean of each term over a chunk.

    Whatever exception ends a training, be it KeyboardInterrupt or one of `callback`,
    has an attribute `result`: a `FitResult` with all until the last whole chunk. In a
    notebook the last exception is `sys.last_value`.

    Raises:
        TrainingStopped: a loss term or the weights became NaN or infinite. Found at
            the end of the chunk, before the journal sees any of it.
        Stopped: a stop was requested of the journal, and everything is saved.
        ValueError: weights that are not finite or of several types, or a loss of
            another type; or a journal whose arrays do not fit, or with more steps.
        TypeError: a `loss` that returns no `Loss`.

    >>> loss = lambda x, key: Loss({"square": (x - 3.0) ** 2})
    >>> result = fit(
    ...     jnp.zeros(()),
    ...     loss,
    ...     optax.adam(0.1),
    ...     steps=500,
    ...     key=jr.key(0),
    ...     progress=False,
    ... )
    >>> print(f"{result.model:.3f}")
    3.000
    """
    mesh = blocks.checked(mesh)
    model = trainable("model", model)
    value = _of_key(loss)
    with precision(dtype_of(model)):
        check_loss(value, model, key)
        optax_steps = OptaxSteps(model, value, optimiser, chunk, mesh)
        return run(
            optax_steps,
            optax_steps.init(model),
            steps=steps,
            key=key,
            name=name,
            progress=progress,
            journal=journal,
            callback=callback,
            mesh=mesh,
        )


class OptaxSteps(AbstractOptimiser[tuple, Model]):
    """Chunks of steps by an Optax optimiser; see `fit` for the arguments."""

    def __init__(
        self,
        model: Model,
        loss: Callable[[Model, PRNGKeyArray], Loss],
        optimiser: optax.GradientTransformation | optax.MultiSteps,
        chunk: int,
        mesh: jax.sharding.Mesh | None,
    ):
        _, self.static = eqx.partition(model, eqx.is_inexact_array)
        self.loss, self.optimiser, self.taken = loss, optimiser, _taken(optimiser)
        self.chunk, self.mesh = chunk, mesh
        self.steps = blocks.on(mesh, programs.once(self._steps))

    def init(self, model: Model) -> tuple:
        """The weights, and the optimiser's state."""
        params = eqx.filter(model, eqx.is_inexact_array)
        return params, self.optimiser.init(params)

    def model(self, state: tuple) -> Model:
        """The model with these weights."""
        return eqx.combine(blocks.here(self.mesh, state[0]), self.static)

    def step(
        self, state: tuple, done: int, left: int, *, key: PRNGKeyArray
    ) -> tuple[tuple, int, dict[str, float]]:
        """One chunk."""
        size = min(self.chunk, left)
        new, seen = self.steps(state, key, jnp.arange(done, done + size))
        terms, weights = jax.tree.map(lambda a: np.asarray(a, np.float64), seen)
        if reason := first_fault(terms, weights, done):
            raise Fault(reason)
        return new, size, {name: float(np.mean(value)) for name, value in terms.items()}

    def _value(self, params: Model, key: PRNGKeyArray) -> tuple[jax.Array, dict]:
        out = self.loss(eqx.combine(params, self.static), key)
        return out.total, {"total": out.total, **out.terms}

    def _steps(
        self, state: tuple, key: PRNGKeyArray, numbers: Int[Array, " n"]
    ) -> tuple[tuple, tuple]:
        return jax.lax.scan(functools.partial(self._one, key), state, numbers)

    def _one(
        self, key: PRNGKeyArray, carry: tuple, i: Int[Array, ""]
    ) -> tuple[tuple, tuple]:
        params, state = carry
        step_key = jr.fold_in(key, i)

        def again() -> PRNGKeyArray:
            # A line search has to see the loss that the step began with.
            return jr.clone(step_key)

        # Optax's line searches pass on to it what else they are given.
        def value(params: Model, obj_fn: Any = None, grad_fn: Any = None) -> jax.Array:
            return self._value(params, again())[0]

        grads, terms = jax.grad(self._value, has_aux=True)(params, again())
        extra = {
            "value": terms["total"],
            "grad": grads,
            "value_fn": value,
            "obj_fn": value,
            "grad_fn": lambda params, _: jax.grad(value)(params),
        }
        # Optax mixes types, which JAX's strict mode would forbid.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = self.optimiser.update(
                grads, state, params, **{name: extra[name] for name in self.taken}
            )
        params = optax.apply_updates(params, updates)
        return (params, state), (terms, largest(params))


def _of_key(
    loss: AbstractLeastSquares | Callable[[Model, PRNGKeyArray], Loss],
) -> Callable[[Model, PRNGKeyArray], Loss]:
    """A loss as a function of the model and of the key that draws its batch."""
    if not isinstance(loss, AbstractLeastSquares):
        return loss
    return lambda model, key: loss(model, loss.sample(model, key=key))


def _taken(optimiser: optax.GradientTransformation | optax.MultiSteps) -> list[str]:
    """Those of the arguments that `fit` has to offer which an optimiser's update takes.

    Some take whatever comes, some nothing but what they need.
    """
    if not isinstance(
        optimiser, optax.GradientTransformationExtraArgs | optax.MultiSteps
    ):
        return []
    offered = ["value", "grad", "value_fn", "obj_fn", "grad_fn"]
    known = inspect.signature(optimiser.update).parameters
    if any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return offered
    return [name for name in offered if name in known]
