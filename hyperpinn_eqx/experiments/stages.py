"""The stages of a training as plain data, and what all of them share."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from ..losses import Loss
from ..model import AbstractModel, cast
from ..training import fit


@dataclasses.dataclass(frozen=True)
class Adam:
    """First stage: Adam in float32 on points that are new at every step.

    Attributes:
        steps: how many.
        rate: the first learning rate of a cosine schedule.
        n_lam: values of λ at every step.
        n_points: collocation points for each.
    """

    steps: int
    rate: float = 1e-3
    n_lam: int = 32
    n_points: int = 64


@dataclasses.dataclass(frozen=True)
class Continuation:
    """First stage of a hypernetwork: follow θ*(λ), then regress onto it.

    Attributes:
        n_lam: values of λ along the path, log-equispaced, largest first.
        first: Gauss-Newton steps at the first λ.
        steps: steps at every other.
        n_points: collocation points.
        distill_steps: Adam steps of the regression.
    """

    n_lam: int = 25
    first: int = 150
    steps: int = 40
    n_points: int = 1500
    distill_steps: int = 50_000


@dataclasses.dataclass(frozen=True)
class GaussNewton:
    """Last stage: Gauss-Newton in float64 over the whole family.

    Attributes:
        steps: how many.
        n_lam: values of λ in a batch.
        n_points: residual-adaptive collocation points for each.
        redraw: steps on one batch.
        rank: directions of the main network's weights kept for each λ.
    """

    steps: int
    n_lam: int = 32
    n_points: int = 400
    redraw: int = 15
    rank: int = 128


@dataclasses.dataclass(frozen=True)
class MultistepAdam:
    """First stage of a multistep network: Adam in float32 on new windows every step.

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
    """Last stage of a multistep network: Gauss-Newton in float64.

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


def in_float32(
    model: AbstractModel,
    loss: Callable[[AbstractModel, PRNGKeyArray], Loss],
    optimiser: optax.GradientTransformation,
    *,
    steps: int,
    key: PRNGKeyArray,
    progress: bool,
) -> AbstractModel:
    """A float64 model after a first stage of Adam in float32."""
    result = fit(
        cast(model, jnp.float32),
        loss,
        optimiser,
        steps=steps,
        key=key,
        progress=progress,
        what="adam",
    )
    return cast(result.model, jnp.float64)


def told(stage: Any, seconds: float, **found: Any) -> dict[str, Any]:
    """What a card tells about a stage: settings, wall time, and what was found."""
    return {
        "stage": type(stage).__name__,
        **dataclasses.asdict(stage),
        "seconds": round(seconds),
        **found,
    }
