"""The experiments as plain data, and the one function that runs any of them."""

import dataclasses
import datetime
import os
import pathlib
import platform
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from . import checkpoint
from .baselines import ConcatPINN
from .continuation import distill, follow
from .gauss_newton import gauss_newton
from .hypernet import HyperPINN
from .losses import Loss, pinn_loss, slope_weight
from .mainnet import MainNetSpec
from .metrics import family_error
from .model import AbstractModel, cast, count_parameters
from .problems import Burgers
from .rows import PINNRows
from .sampling import Batch, conditions, log_uniform, uniform
from .training import fit


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
class Experiment:
    """One trained model of the book.

    Attributes:
        name: what `load_pretrained` calls it.
        main: layer widths of the main network, λ's inputs not counted.
        hidden: widths of the hypernetwork's trunk; None for a baseline.
        paper_mse: the mean squared error in the paper's Table 1.
        start: the first stage.
        finish: the last stage.
        alpha: the weight of the physics term (paper eq. 6).
    """

    name: str
    main: tuple[int, ...]
    hidden: tuple[int, ...] | None
    paper_mse: float
    start: Adam | Continuation
    finish: GaussNewton
    alpha: float = 1.0


# What a card says about where each stage looks.
SAMPLING = {
    "Adam": "nu log-uniform, collocation points uniform, new at every step",
    "Continuation": "nu log-equispaced, collocation points residual-adaptive",
    "GaussNewton": "nu a Latin hypercube in log nu and both ends, collocation points "
    "residual-adaptive, new with every batch",
}

_SMALL, _LARGE = (2, *6 * (8,), 1), (2, *10 * (32,), 1)
EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment(
            "burgers-hyperpinn",
            _SMALL,
            (32, 32, 32, 16),
            1.9e-5,
            Continuation(),
            GaussNewton(150),
        ),
        Experiment(
            "burgers-small-pinn", _SMALL, None, 3.0e-4, Adam(20_000), GaussNewton(150)
        ),
        Experiment(
            "burgers-large-pinn",
            _LARGE,
            None,
            2.3e-5,
            Adam(6_000),
            # A dense Jacobian of 9665 columns: fewer rows keep a step at seconds.
            GaussNewton(60, n_lam=24, n_points=200, rank=96),
        ),
    )
}


def build(experiment: Experiment, *, key: PRNGKeyArray) -> AbstractModel:
    """The untrained model of an experiment."""
    problem = Burgers()
    main = MainNetSpec(experiment.main, problem.domain)
    if experiment.hidden is None:
        return ConcatPINN(main, problem.parameters, key=key)
    return HyperPINN(main, problem.parameters, experiment.hidden, key=key)


def train(
    name: str,
    *,
    seed: int = 0,
    out: str | os.PathLike = ".",
    progress: bool = True,
) -> tuple[AbstractModel, dict[str, Any]]:
    """Trains one model from scratch and writes `NAME.eqx` and its card `NAME.json`.

    Args:
        name: an experiment's name.
        seed: of everything random.
        out: the folder to write to; it is made if need be.
        progress: whether to show bars.

    Returns:
        The model, and the card as a dictionary.

    Raises:
        ValueError: an unknown name, or JAX is not in float64 mode.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"name = {name!r}, expected one of {', '.join(EXPERIMENTS)}")
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "jax_enable_x64 = False, expected True: Gauss-Newton needs float64"
        )
    experiment, out = EXPERIMENTS[name], pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    problem = Burgers()
    model_key, data_key, start_key, finish_key = jr.split(jr.key(seed), 4)
    rows = PINNRows(
        problem,
        *conditions(problem, key=data_key),
        n_points=experiment.finish.n_points,
        alpha=experiment.alpha,
        weight=slope_weight("x"),
    )
    model = build(experiment, key=model_key)
    begun = time.perf_counter()
    if isinstance(experiment.start, Adam):
        model = _adam(experiment.start, model, rows, start_key, progress)
    else:
        model = _continuation(experiment.start, model, rows, start_key, progress)
    middle, middle_error = time.perf_counter(), family_error(model, problem)

    finish = experiment.finish
    result = gauss_newton(
        model,
        rows,
        lambda model, key: rows.batch(model, key, finish.n_lam),
        steps=finish.steps,
        redraw=finish.redraw,
        rank=finish.rank,
        damping=1e-3,
        key=finish_key,
        progress=progress,
    )
    model, error = result.model, family_error(result.model, problem)
    card = {
        "name": name,
        "equation": "u_t + u u_x = nu u_xx, u(0, x) = -sin(pi x), u(t, +-1) = 0",
        "lambda": problem.parameters.ranges(),
        "domain": problem.domain.ranges(),
        "architecture": model.config(),
        "parameters": parameter_counts(model),
        "alpha": experiment.alpha,
        "conditions": "50 initial and 50 boundary points, uniform, drawn once",
        "stages": [
            {
                "stage": type(experiment.start).__name__,
                "sampling": SAMPLING[type(experiment.start).__name__],
                **dataclasses.asdict(experiment.start),
                "seconds": round(middle - begun),
                "mse": middle_error.mean,
            },
            {
                "stage": "GaussNewton",
                "sampling": SAMPLING["GaussNewton"],
                **dataclasses.asdict(finish),
                "seconds": round(result.seconds),
                "mse": error.mean,
            },
        ],
        "seed": seed,
        "dtype": "float64",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, {jax.devices()[0].device_kind}",
        "versions": {
            "python": platform.python_version(),
            **{p.__name__: p.__version__ for p in (jax, eqx, optax, np)},
        },
        "error": {
            "grid": "64 equispaced nu x 101 equispaced t x 256 equispaced x, float64",
            "mse": error.mean,
            "nu": [float(f"{v:.6g}") for v in error.lam],
            "mse_per_nu": [float(f"{v:.4g}") for v in error.mse],
            "relative_l2_per_nu": [float(f"{v:.4g}") for v in error.relative_l2],
        },
    }
    checkpoint.save(out / f"{name}.eqx", model, card)
    checkpoint.write_json(out / f"{name}.json", card)
    return model, card


def parameter_counts(model: AbstractModel) -> dict[str, int]:
    """Trainable numbers of a model, and of the network evaluated at every point."""
    middle = [
        (lo + hi) / 2
        for lo, hi in zip(model.parameters.low, model.parameters.high, strict=True)
    ]
    return {
        "model": count_parameters(model),
        "main network": count_parameters(model(jnp.asarray(middle))),
    }


def _adam(
    stage: Adam, model: AbstractModel, rows: PINNRows, key: PRNGKeyArray, progress: bool
) -> AbstractModel:
    problem = rows.problem

    def loss(model: AbstractModel, key: PRNGKeyArray) -> Loss:
        lam_key, point_key = jr.split(key)
        shape = (stage.n_lam, stage.n_points)
        batch = Batch(
            log_uniform(problem.parameters, shape[:1], key=lam_key),
            uniform(problem.domain, shape, key=point_key),
            rows.initial,
            rows.boundary,
        )
        return pinn_loss(
            model,
            problem,
            cast(batch, jnp.float32),
            alpha=rows.alpha,
            weight=rows.weight,
        )

    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(stage.rate, stage.steps)),
    )
    result = fit(
        cast(model, jnp.float32),
        loss,
        optimiser,
        steps=stage.steps,
        key=key,
        progress=progress,
        what="adam",
    )
    return cast(result.model, jnp.float64)


def _continuation(
    stage: Continuation,
    model: AbstractModel,
    rows: PINNRows,
    key: PRNGKeyArray,
    progress: bool,
) -> AbstractModel:
    box = rows.problem.parameters
    net_key, path_key = jr.split(key)
    lams = jnp.geomspace(box.high[0], box.low[0], stage.n_lam)[:, None]
    path = follow(
        model(lams[0]).spec.init(key=net_key),
        dataclasses.replace(rows, n_points=stage.n_points),
        lams,
        first=stage.first,
        steps=stage.steps,
        key=path_key,
        progress=progress,
    )
    result = distill(
        model, lams, path.model, steps=stage.distill_steps, key=key, progress=progress
    )
    return result.model
