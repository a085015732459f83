"""The paper's Burgers experiments: sizes, recipes, and how to run them."""

import dataclasses
import time
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ..baselines import ConcatPINN
from ..continuation import distill, follow
from ..gauss_newton import gauss_newton
from ..hypernet import HyperPINN
from ..losses import Loss, pinn_loss, slope_weight
from ..mainnet import MainNetSpec
from ..metrics import family_error
from ..model import AbstractModel, cast
from ..problems import Burgers
from ..rows import PINNRows
from ..sampling import Batch, conditions, log_uniform, uniform
from .stages import Adam, Continuation, GaussNewton, in_float32, told

# What a card says about where each stage looks.
SAMPLING = {
    Adam: "nu log-uniform, collocation points uniform, new at every step",
    Continuation: "nu log-equispaced, collocation points residual-adaptive",
    GaussNewton: "nu a Latin hypercube in log nu and both ends, collocation points "
    "residual-adaptive, new with every batch",
}


@dataclasses.dataclass(frozen=True)
class BurgersExperiment:
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

    def build(self, *, key: PRNGKeyArray) -> AbstractModel:
        """The untrained model."""
        problem = Burgers()
        main = MainNetSpec(self.main, problem.domain)
        if self.hidden is None:
            return ConcatPINN(main, problem.parameters, key=key)
        return HyperPINN(main, problem.parameters, self.hidden, key=key)

    def run(
        self, *, key: PRNGKeyArray, progress: bool
    ) -> tuple[AbstractModel, dict[str, Any]]:
        """Trains the model; returns it with what its card tells about the training."""
        problem = Burgers()
        model_key, data_key, start_key, finish_key = jr.split(key, 4)
        rows = PINNRows(
            problem,
            *conditions(problem, key=data_key),
            n_points=self.finish.n_points,
            alpha=self.alpha,
            weight=slope_weight("x"),
        )
        model = self.build(key=model_key)
        begun = time.perf_counter()
        if isinstance(self.start, Adam):
            model = _adam(self.start, model, rows, start_key, progress)
        else:
            model = _continuation(self.start, model, rows, start_key, progress)
        middle, middle_error = time.perf_counter(), family_error(model, problem)

        finish = self.finish
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
        error = family_error(result.model, problem)
        return result.model, {
            "equation": "u_t + u u_x = nu u_xx, u(0, x) = -sin(pi x), u(t, +-1) = 0",
            "lambda": problem.parameters.ranges(),
            "domain": problem.domain.ranges(),
            "alpha": self.alpha,
            "conditions": "50 initial and 50 boundary points, uniform, drawn once",
            "stages": [
                told(stage, seconds, sampling=SAMPLING[type(stage)], mse=found.mean)
                for stage, seconds, found in (
                    (self.start, middle - begun, middle_error),
                    (finish, result.seconds, error),
                )
            ],
            "error": {
                "grid": "64 equispaced nu x 101 equispaced t x 256 equispaced x, "
                "float64",
                "mse": error.mean,
                "nu": [float(f"{v:.6g}") for v in error.lam],
                "mse_per_nu": [float(f"{v:.4g}") for v in error.mse],
                "relative_l2_per_nu": [float(f"{v:.4g}") for v in error.relative_l2],
            },
        }


_SMALL, _LARGE = (2, *6 * (8,), 1), (2, *10 * (32,), 1)
BURGERS = (
    BurgersExperiment(
        "burgers-hyperpinn",
        _SMALL,
        (32, 32, 32, 16),
        1.9e-5,
        Continuation(),
        GaussNewton(150),
    ),
    BurgersExperiment(
        "burgers-small-pinn", _SMALL, None, 3.0e-4, Adam(20_000), GaussNewton(150)
    ),
    BurgersExperiment(
        "burgers-large-pinn",
        _LARGE,
        None,
        2.3e-5,
        Adam(6_000),
        # A dense Jacobian of 9665 columns: fewer rows keep a step at seconds.
        GaussNewton(60, n_lam=24, n_points=200, rank=96),
    ),
)


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
    return in_float32(
        model, loss, optimiser, steps=stage.steps, key=key, progress=progress
    )


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
