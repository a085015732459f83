"""A recipe that trains a HyperPINN for any family of equations, in one call."""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from .. import _programs as programs
from .._arguments import Count, NonNegative, Positive, TwoOrMore, checked
from ..loss import Loss
from ..networks.hyper import HyperPINN
from ..networks.main import Hard, MainNetSpec, in_float64
from ..networks.model import cast
from ..physics.observations import Observations
from ..physics.pinn import PINNLoss
from ..physics.sampling import log_uniform
from ..physics.units import Dimensionless, dimensionless
from ..problems.base import AbstractPDE
from ..training.fit import fit
from ..training.gauss_newton import GaussNewton
from ..training.journal import Journal
from ..training.result import FitResult, converting
from ..training.run import run
from .fingerprint import digest, fingerprint, program
from .held_out import UntilLevel

# Of families with exact solutions, errors of a hundredth begin at such a held-out loss.
_LARGE = 1e-5


@in_float64
@checked
def train_family(
    problem: AbstractPDE,
    observations: Observations | None = None,
    *,
    main: Sequence[Count] | None = None,
    hidden: Sequence[Count] | None = None,
    adam_steps: Count = 1000,
    newton_steps: Count = 600,
    tolerance: NonNegative = 1e-9,
    n_lam: TwoOrMore | None = None,
    n_points: Count = 200,
    n_conditions: Count = 50,
    rank: Count | None = None,
    scale: Positive | Mapping[str, Positive] | None = None,
    weights: Mapping[str, NonNegative] | None = None,
    hard: Hard | None = None,
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
        observations: what has been seen of its solutions, one more term of the loss.
        main: hidden layers of the main network; by default (8, 8, 8) for one field over
            two coordinates with one parameter, else (16, 16, 16).
        hidden: layers of the hypernetwork's trunk; by default (16, 16, 8) there, else
            (24, 24, 12).
        adam_steps: steps of Adam in float32, on 16 λ with 64 points each, all new at
            every step.
        newton_steps: at most so many steps of Gauss-Newton in float64. They end before
            when the loss at λ and points that no step sees, the held-out loss, is at
            most `tolerance`, or level: when it has not halved in 240 steps.
        tolerance: the default ends a training when residuals are 3e-5 of their terms;
            solutions are then right to about four digits. With 0 it goes on as long as
            that is of use.
        n_lam: values of λ in a batch of Gauss-Newton; by default 32 for one parameter,
            64 for several, between which more can hide.
        n_points: residual-adaptive collocation points for each of them.
        n_conditions: points of each condition for each of them.
        rank: rows kept for each λ, see `gauss_newton`; by default so many that a batch
            has twice as many rows as the main network has weights.
        scale: how far a field typically is from the mean of the values that conditions
            prescribe: one number, or some by name. If None it is found from these and
            from the equation; name it where they do not tell.
        weights: of the terms by name, see `PINNLoss`; 1 for those that are not named.
        hard: builds conditions into the main network, see `MainNetSpec`; those that it
            meets may have the weight 0.
        key: a JAX random key.
        progress: whether to show bars.
        journal: keeps the training and goes on from it, see `Journal`. It knows the
            problem and the settings that it began with; only `newton_steps` and
            `tolerance` may be others.

    Returns:
        A `FitResult` with a model in the problem's units, and the history of "total"
        over both stages, in units of their own; "held_out" is the loss at λ and points
        that no step has seen, at the last step and at every eighth, NaN at others. The
        model is that of the least of these.

    Raises:
        ValueError: a journal of another training: an equation that has changed is one.
        TrainingStopped: a loss that is not finite.
        Stopped: a stop was requested of the journal.

    Warns:
        UserWarning: the held-out loss is so large in the end that solutions are hardly
            right to a hundredth, and which term has most of it.
    """
    model_key, adam_key, newton_key, held_key = jr.split(key, 4)
    given, problem = problem, dimensionless(problem, scale, observations)
    seen = None if observations is None else problem.scaled(observations)
    physical = _untrained(problem, main, hidden, hard, key=model_key)
    if n_lam is None:
        n_lam = 32 if len(problem.parameters) == 1 else 64
    if rank is None:
        rank = -(-2 * physical.main.size // n_lam)
    # The same weights, over coordinates from 0 to 1.
    form = None if hard is None else problem.hard(hard)
    shape = MainNetSpec(physical.main.sizes, problem.bounds, hard=form)
    model = with_main(physical, shape)
    newton_loss = PINNLoss(
        problem,
        seen,
        n_lam=n_lam,
        n_points=n_points,
        n_conditions=n_conditions,
        weights=weights,
    )
    adam_loss = dataclasses.replace(
        newton_loss, n_lam=16, n_points=64, sample_lam=log_uniform, adaptive=False
    )
    if journal is not None:
        # Not how it ends: a longer training begins like a shorter one.
        settings = {
            "problem": fingerprint(given),
            "scale": scale if scale is None else str(scale),
            "observations": digest(observations),
            "weights": dict(weights or {}),
            "hard": None if hard is None else program(given, hard),
            "main": physical.main.sizes,
            "hidden": model.trunk.hidden,
            "adam_steps": adam_steps,
            "n_lam": n_lam,
            "n_points": newton_loss.n_points,
            "n_conditions": n_conditions,
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
        steps = GaussNewton(
            newton_loss, rank, jax.tree.map(eqx.is_inexact_array, model)
        )
        watched = UntilLevel(steps, newton_loss, tolerance, key=held_key)
        newton = run(
            watched,
            watched.init(model, 1e-3),
            steps=newton_steps,
            key=newton_key,
            name="gauss-newton",
            **options,
        )
    # The model is that of the least.
    if np.nanmin(newton.history["held_out"]) > _LARGE:
        _warn(watched.terms(newton.model), len(newton.history["total"]) < newton_steps)
    before = np.array(first["total"])
    columns = {
        "total": np.concatenate([before, newton.history["total"]]),
        "held_out": np.append(np.nan * before, newton.history["held_out"]),
    }
    seconds = first["seconds"] + newton.seconds
    return in_units(FitResult(newton.model, columns, seconds))


def _warn(held: Loss, level: bool) -> None:
    # What is observed has noise, and no network should follow that.
    terms = {n: float(v) for n, v in held.terms.items() if n != "observations"}
    total = sum(terms.values())
    if total <= _LARGE:
        return
    worst = max(terms, key=terms.__getitem__)
    advice = (
        "it was level, and larger networks (main, hidden), more of the rows of each λ "
        "(rank) or more λ (n_lam) may help"
        if level
        else "newton_steps ended the training before it was level"
    )
    warnings.warn(
        f"the held-out loss is {total:.1e}, most of it in {worst!r}: residuals are "
        f"{math.sqrt(total):.1%} of their terms, and solutions are off by as much or "
        f"more; {advice}",
        stacklevel=5,
    )


def untrained(
    problem: AbstractPDE,
    main: Sequence[int] | None,
    hidden: Sequence[int] | None,
    *,
    scale: float | Mapping[str, float] | None = None,
    key: PRNGKeyArray,
) -> HyperPINN:
    """A HyperPINN for a family, given the hidden layers of both of its networks."""
    return _untrained(dimensionless(problem, scale), main, hidden, None, key=key)


def _untrained(
    problem: Dimensionless,
    main: Sequence[int] | None,
    hidden: Sequence[int] | None,
    hard: Hard | None,
    *,
    key: PRNGKeyArray,
) -> HyperPINN:
    domain, k = problem.extent, len(problem.fields)
    simple = k == 1 and len(domain) <= 2 and len(problem.parameters) == 1
    main = main or ((8, 8, 8) if simple else (16, 16, 16))
    hidden = hidden or ((16, 16, 8) if simple else (24, 24, 12))
    sizes = (len(domain), *main, k)
    shape = MainNetSpec(sizes, domain, problem.outputs, hard=hard)

    def build(key: PRNGKeyArray) -> HyperPINN:
        return HyperPINN(shape, problem.parameters, hidden, key=key)

    # One program instead of one for each draw and each shape.
    return programs.call(build, key)


def with_main(model: HyperPINN, main: MainNetSpec) -> HyperPINN:
    """The same weights for a main network of other units."""
    hidden = model.trunk.hidden
    like = eqx.filter_eval_shape(
        lambda: HyperPINN(main, model.parameters, hidden, key=jr.key(0))
    )
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(model))
