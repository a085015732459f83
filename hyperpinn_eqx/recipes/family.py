"""A recipe that trains a HyperPINN for any family of equations, in one call."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from .._arguments import Count, CountOrZero, Positive, TwoOrMore, checked
from ..networks.hyper import HyperPINN
from ..networks.main import MainNetSpec, in_float64
from ..networks.model import cast
from ..physics.pinn import PINNLoss
from ..physics.sampling import conditions, log_uniform
from ..physics.units import dimensionless
from ..problems.base import AbstractPDE
from ..training.fit import fit
from ..training.gauss_newton import gauss_newton
from ..training.journal import Journal
from ..training.result import FitResult, converting
from .fingerprint import fingerprint


@in_float64
@checked
def train_family(
    problem: AbstractPDE,
    *,
    main: Sequence[Count] = (8, 8, 8),
    hidden: Sequence[Count] = (16, 16, 8),
    adam_steps: Count = 1000,
    newton_steps: Count = 200,
    n_lam: TwoOrMore = 32,
    n_points: Count = 200,
    n_conditions: Sequence[CountOrZero] = (50, 100),
    rank: Count = 32,
    scale: Positive | None = None,
    key: PRNGKeyArray,
    progress: bool = True,
    journal: Journal | None = None,
) -> FitResult:
    """Trains a HyperPINN for a family of equations: Adam, then Gauss-Newton.

    What the chapter on an equation of one's own does step by step, with its settings as
    defaults; half a minute on two CPU cores. It knows nothing of the equation but what
    its class says. It trains in units of its own, in which coordinates, u and the
    residual are of order one: in other units of the equation the result is the same.
    Where it stalls, take its parts in hand: `PINNLoss`, `fit` and `gauss_newton`.

    Args:
        problem: the family of equations, in any units.
        main: hidden layers of the main network.
        hidden: layers of the hypernetwork's trunk.
        adam_steps: steps of Adam in float32, on 16 λ with 64 points each, all new at
            every step.
        newton_steps: steps of Gauss-Newton in float64.
        n_lam: values of λ in a batch of Gauss-Newton.
        n_points: residual-adaptive collocation points for each of them.
        n_conditions: points of the initial time and of the walls, drawn once.
        rank: rows kept for each λ, see `gauss_newton`.
        scale: how far u typically is from the mean of its initial and boundary
            values. If None it is found from these and from the equation; name it where
            they do not tell.
        key: a JAX random key.
        progress: whether to show bars.
        journal: keeps the training and goes on from it, see `Journal`. It knows the
            problem and the settings that it began with; only `newton_steps` may be
            others.

    Returns:
        A `FitResult` with a model in the problem's units, and the history of "total"
        over both stages in units of their own.

    Raises:
        ValueError: a journal of another training: an equation that has changed is one.
        TrainingStopped: a loss that is not finite.
        Stopped: a stop was requested of the journal.
    """
    if len(n_conditions) != 2:
        raise ValueError(f"n_conditions = {n_conditions}, expected two numbers")
    model_key, edge_key, adam_key, newton_key = jr.split(key, 4)
    given, problem = problem, dimensionless(problem, scale)
    physical = untrained(given, main, hidden, scale=scale, key=model_key)
    # The same weights, over coordinates from 0 to 1.
    shape = MainNetSpec(physical.main.sizes, problem.domain)
    model = with_main(physical, shape)
    edges = conditions(problem, *n_conditions, key=edge_key)
    newton_loss = PINNLoss(problem, *edges, n_lam=n_lam, n_points=n_points)
    adam_loss = PINNLoss(
        problem,
        *edges,
        n_lam=16,
        n_points=64,
        sample_lam=log_uniform,
        adaptive=False,
    )
    if journal is not None:
        # Not `newton_steps`: a longer training begins like a shorter one.
        settings = {
            "problem": fingerprint(given),
            "scale": scale,
            "main": main,
            "hidden": model.trunk.hidden,
            "adam_steps": adam_steps,
            "n_lam": n_lam,
            "n_points": newton_loss.n_points,
            "n_conditions": [int(n) for n in n_conditions],
            "rank": rank,
            "key": jr.key_data(key).tolist(),
        }
        journal.record("adam", settings)

    def in_units(result: FitResult) -> FitResult:
        model = with_main(result.model, physical.main)
        return FitResult(model, result.history, result.seconds)

    options: dict[str, Any] = {"progress": progress, "journal": journal}
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, adam_steps))
    first = None if journal is None else journal.finished("adam")
    with converting(in_units):
        if first is None:
            start = cast(model, jnp.float32)
            adam = fit(
                start,
                adam_loss,
                optimiser,
                steps=adam_steps,
                key=adam_key,
                name="adam",
                **options,
            )
            model = cast(adam.model, jnp.float64)
            first = {"seconds": adam.seconds, "total": adam.history["total"].tolist()}
            if journal is not None:
                journal.finish("adam", first, model)
        elif journal is not None:
            model = journal.model(model)
        newton = gauss_newton(
            model,
            newton_loss,
            steps=newton_steps,
            rank=rank,
            damping=1e-3,
            key=newton_key,
            **options,
        )
    total = np.concatenate([first["total"], newton.history["total"]])
    seconds = first["seconds"] + newton.seconds
    return in_units(FitResult(newton.model, {"total": total}, seconds))


def untrained(
    problem: AbstractPDE,
    main: Sequence[int],
    hidden: Sequence[int],
    *,
    scale: float | None = None,
    key: PRNGKeyArray,
) -> HyperPINN:
    """A HyperPINN for a family, given the hidden layers of both of its networks."""
    outputs = dimensionless(problem, scale).outputs
    shape = MainNetSpec((len(problem.domain), *main, 1), problem.domain, outputs)
    return HyperPINN(shape, problem.parameters, hidden, key=key)


def with_main(model: HyperPINN, main: MainNetSpec) -> HyperPINN:
    """The same weights for a main network of other units."""
    hidden = model.trunk.hidden
    like = eqx.filter_eval_shape(
        lambda: HyperPINN(main, model.parameters, hidden, key=jr.key(0))
    )
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(model))
