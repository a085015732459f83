"""The stages of a training as plain data, and what all of them share."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ..loss import AbstractLeastSquares, Loss
from ..networks.model import AbstractModel, cast
from ..training.fit import fit
from ..training.journal import Journal
from ..training.result import FitResult


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam in float32 on points that are new at every step.

    Attributes:
        steps: how many.
        rate: the first learning rate of a cosine schedule.
        n_lam: values of λ at every step.
        n_points: collocation points for each.
        log: whether λ is log-uniform; uniform if not (paper A.5).
    """

    steps: int
    rate: float = 1e-3
    n_lam: int = 32
    n_points: int = 64
    log: bool = True


@dataclasses.dataclass(frozen=True)
class Continuation:
    """First stage of a hypernetwork: follow θ*(λ), then reproduce it.

    Attributes:
        n_lam: values of λ along the path, log-equispaced, largest first.
        first: Gauss-Newton steps at the first λ.
        steps: steps at every other.
        n_points: collocation points.
        distill_steps: Adam steps of the distillation.
    """

    n_lam: int = 13
    first: int = 150
    steps: int = 40
    n_points: int = 1000
    distill_steps: int = 20_000


@dataclasses.dataclass(frozen=True)
class GaussNewton:
    """Gauss-Newton in float64 over the whole family.

    Attributes:
        steps: how many.
        n_lam: values of λ in a batch.
        n_points: residual-adaptive collocation points for each.
        redraw: steps on one batch.
        rank: rows kept for each λ.
    """

    steps: int
    n_lam: int = 64
    n_points: int = 400
    redraw: int = 8
    rank: int = 24


@dataclasses.dataclass(frozen=True)
class MultistepAdam:
    """Adam in float32 for a multistep network, on new windows at every step.

    Attributes:
        steps: how many.
        rate: the first learning rate of a cosine schedule.
        n_windows: windows for each λ at every step.
    """

    steps: int
    rate: float = 3e-3
    n_windows: int = 64


@dataclasses.dataclass(frozen=True)
class MultistepGaussNewton:
    """Gauss-Newton in float64 for a multistep network.

    Attributes:
        steps: how many.
        n_windows: windows for each λ in a batch.
        redraw: steps on one batch.
        rank: directions of the main network's weights kept for each λ.
        frozen_trunk: whether a hypernetwork's trunk stays as it started.
    """

    steps: int
    n_windows: int = 400
    redraw: int = 60
    rank: int = 128
    frozen_trunk: bool = False


# From a stage, a model, a key, and the name of the stage in the journal: what the
# training returns, and what else the card should tell about it.
Run = Callable[
    [Any, AbstractModel, PRNGKeyArray, str], tuple[FitResult, dict[str, Any]]
]


def run_stages(
    stages: Sequence[Any],
    model: AbstractModel,
    run: Run,
    *,
    key: PRNGKeyArray,
    journal: Journal,
) -> tuple[AbstractModel, list[dict[str, Any]]]:
    """Runs one stage after the other, but for those that the journal has finished.

    Returns:
        The model, and what a card tells about each stage: its settings, the seconds
        it took, and what `run` found.
    """
    records: list[dict[str, Any]] = []
    for i, stage in enumerate(stages, start=1):
        name = f"{i}/{len(stages)} {type(stage).__name__}"
        record = journal.finished(name)
        if record is None:
            result, found = run(stage, model, jr.fold_in(key, i), name)
            model = result.model
            settings = {"stage": type(stage).__name__, **dataclasses.asdict(stage)}
            record = {**settings, "seconds": round(result.seconds, 1), **found}
            journal.finish(name, record, model)
        else:
            model = journal.model(model)
        records.append(record)
    return model, records


def in_float32(
    model: AbstractModel,
    loss: AbstractLeastSquares | Callable[[AbstractModel, PRNGKeyArray], Loss],
    optimiser: optax.GradientTransformation,
    **options: Any,
) -> FitResult:
    """`fit` in float32 for a float64 model; the result is float64 again."""
    result = fit(cast(model, jnp.float32), loss, optimiser, **options)
    return FitResult(cast(result.model, jnp.float64), result.history, result.seconds)
