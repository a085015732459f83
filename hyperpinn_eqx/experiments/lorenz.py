"""The paper's Lorenz experiments: data, sizes, recipes, and how to run them."""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from ..baselines import ConcatPINN
from ..box import Box
from ..forecasts import field_error, trajectory_errors
from ..gauss_newton import gauss_newton
from ..hypernet import HyperPINN
from ..losses import Loss, multistep_loss
from ..mainnet import MainNetSpec
from ..model import AbstractModel, cast
from ..multistep import adams_moulton
from ..problems import Lorenz
from ..rows import MultistepRows
from ..sampling import chebyshev, uniform
from ..trajectories import Trajectories, simulate
from .stages import MultistepAdam, MultistepGaussNewton, in_float32, told

# Paper eq. 9.
SCHEME = adams_moulton(1)
# Mean ± one standard deviation over the training set, rounded; for the slopes, the
# standard deviation around zero.
STATE = Box(x=(-4.6, 4.6), y=(-4.9, 4.9), z=(2.3, 22.3))
SLOPE = Box(dx=(-18, 18), dy=(-27, 27), dz=(-32, 32))


def training_set(*, key: PRNGKeyArray) -> Trajectories:
    """The training data: 100 trajectories for each of 30 λ (paper A.6).

    The paper does not say how the 30 values were chosen. We take the Chebyshev nodes
    of β (5) and ρ (6): they are as many, and leave no corner of the range unseen.
    """
    problem = Lorenz()
    # In float64 whatever the caller's precision, so that one key means one data set.
    with jax.enable_x64(True):
        lam = chebyshev(problem.parameters, (1, 5, 6))
        start = uniform(problem.initial, (len(lam), 100), key=key)
        return simulate(problem, lam, start)


@functools.cache
def test_set() -> Trajectories:
    """The test data: 100 trajectories, each with its own λ and initial state."""
    problem = Lorenz()
    lam_key, start_key = jr.split(jr.key(2021))
    with jax.enable_x64(True):
        lam = uniform(problem.parameters, (100,), key=lam_key)
        start = uniform(problem.initial, (100, 1), key=start_key)
        return simulate(problem, lam, start)


@dataclasses.dataclass(frozen=True)
class LorenzExperiment:
    """One trained model of the Lorenz family.

    Attributes:
        name: what `load_pretrained` calls it.
        width: of the main network's one hidden layer.
        hidden: widths of the hypernetwork's trunk; None for a baseline.
        paper_mse: the mean squared trajectory error that the paper reports.
        start: the first stage, if there are two.
        finish: the last stage.
    """

    name: str
    width: int
    hidden: tuple[int, ...] | None
    paper_mse: float
    start: MultistepAdam | None
    finish: MultistepGaussNewton

    def build(self, *, key: PRNGKeyArray) -> AbstractModel:
        """The untrained model."""
        parameters = Lorenz().parameters
        main = MainNetSpec((3, self.width, 3), STATE, SLOPE, bounded=False)
        if self.hidden is None:
            return ConcatPINN(main, parameters, augmented=True, key=key)
        return HyperPINN(main, parameters, self.hidden, init="common", key=key)

    def run(
        self, *, key: PRNGKeyArray, progress: bool
    ) -> tuple[AbstractModel, dict[str, Any]]:
        """Trains the model; returns it with what its card tells about the training."""
        problem = Lorenz()
        model_key, data_key, start_key, finish_key = jr.split(key, 4)
        data = training_set(key=data_key)
        scale = jnp.asarray(SLOPE.high)
        true = test_set()
        stages: list[dict[str, Any]] = []

        def error(model: AbstractModel) -> dict[str, float]:
            return {"field_relative_l2": field_error(model, problem, true)[0]}

        model = self.build(key=model_key)
        if self.start is not None:
            begun = time.perf_counter()
            model = _adam(self.start, model, data, scale, start_key, progress)
            seconds = time.perf_counter() - begun
            stages.append(told(self.start, seconds, **error(model)))
        finish = self.finish
        rows = MultistepRows(data, SCHEME, scale, finish.n_windows)
        result = gauss_newton(
            model,
            rows,
            rows.batch,
            steps=finish.steps,
            redraw=finish.redraw,
            rank=finish.rank,
            floor=1e-9,
            frozen=_trunk if finish.frozen_trunk else None,
            key=finish_key,
            progress=progress,
        )
        model = result.model
        stages.append(told(finish, result.seconds, **error(model)))
        forecasts = simulate(model, true.lam, true.states[:, :, 0])
        errors = trajectory_errors(forecasts, true)
        return model, {
            "equation": "x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z",
            "lambda": problem.parameters.ranges(),
            "initial": problem.initial.ranges(),
            "scheme": SCHEME.name,
            "dt": data.dt,
            "data": "30 lambda (Chebyshev nodes, 5 beta x 6 rho) x 100 trajectories of "
            "25 s, initial states uniform",
            "stages": stages,
            "error": {
                "set": "100 trajectories of 25 s, lambda and initial states uniform",
                "field_relative_l2": stages[-1]["field_relative_l2"],
                "mse_mean": float(np.mean(errors)),
                "mse_median": float(np.median(errors)),
                "finished": int(np.sum(forecasts.finished)),
            },
        }


_SMALL, _LARGE = 16, 256
LORENZ = (
    LorenzExperiment(
        "lorenz-hyperpinn",
        _SMALL,
        (16, 8),
        17.5,
        None,
        MultistepGaussNewton(600, frozen_trunk=True),
    ),
    LorenzExperiment(
        "lorenz-small", _SMALL, None, 39.4, None, MultistepGaussNewton(1600)
    ),
    LorenzExperiment(
        "lorenz-large",
        _LARGE,
        None,
        20.6,
        MultistepAdam(8000),
        MultistepGaussNewton(75, n_windows=150, redraw=20, rank=64),
    ),
)


def _trunk(model: Any) -> tuple:
    return model.weights, model.biases


def _adam(
    stage: MultistepAdam,
    model: AbstractModel,
    data: Trajectories,
    scale: jax.Array,
    key: PRNGKeyArray,
    progress: bool,
) -> AbstractModel:
    data, scale = cast(data, jnp.float32), cast(scale, jnp.float32)

    def loss(model: AbstractModel, key: PRNGKeyArray) -> Loss:
        windows = data.windows(SCHEME.steps + 1, stage.n_windows, key=key)
        return multistep_loss(
            model, data.lam, windows, scheme=SCHEME, dt=data.dt, scale=scale
        )

    return in_float32(
        model,
        loss,
        optax.adam(optax.cosine_decay_schedule(stage.rate, stage.steps)),
        steps=stage.steps,
        key=key,
        progress=progress,
    )
