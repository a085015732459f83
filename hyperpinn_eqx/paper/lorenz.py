"""The paper's Lorenz experiments: sizes, recipes, and how to run them."""

import dataclasses
import operator
from typing import Any, ClassVar

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from ..box import Box
from ..dynamics.forecasts import field_error, trajectory_errors
from ..dynamics.loss import MultistepLoss
from ..dynamics.trajectories import Trajectories, simulate
from ..networks.conditioned import ConcatPINN
from ..networks.hyper import HyperPINN
from ..networks.main import MainNetSpec
from ..networks.model import AbstractModel, cast
from ..problems.lorenz import Lorenz
from ..recipes.stages import MultistepAdam, MultistepGaussNewton, in_float32, run_stages
from ..training.gauss_newton import gauss_newton
from ..training.journal import Journal
from ..training.result import FitResult
from .experiment import Named
from .lorenz_data import SCHEME, SLOPE, STATE, test_set, training_set, true_run
from .lorenz_measures import LorenzRow, measure


@dataclasses.dataclass(frozen=True)
class LorenzExperiment(Named):
    """One trained model of the Lorenz family.

    Attributes:
        name: what `load_pretrained` calls it.
        width: of the main network's one hidden layer.
        hidden: widths of the hypernetwork's trunk; None for a baseline.
        paper_mse: the mean squared trajectory error that the paper reports.
        stages: how it is trained.
        recipe: what these stages are called.
        duration: of the trajectories that it learns from and is tested on.
    """

    problem: ClassVar[Lorenz] = Lorenz()
    equation: ClassVar[str] = (
        "x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z"
    )

    name: str
    width: int
    hidden: tuple[int, ...] | None
    paper_mse: float
    stages: tuple[MultistepAdam | MultistepGaussNewton, ...]
    recipe: str = "best"
    duration: float = 25.0

    @property
    def inputs(self) -> Box:
        """What the main network takes."""
        return STATE

    def measure(self, model: AbstractModel) -> LorenzRow:
        """The errors of the field, of forecasts and of long runs on the test set."""
        return measure(model, test_set(self.duration), true_run())

    def build(self, *, key: PRNGKeyArray) -> AbstractModel:
        """The untrained model."""
        parameters = Lorenz().parameters
        main = MainNetSpec((3, self.width, 3), STATE, SLOPE, bounded=False)
        if self.hidden is None:
            return ConcatPINN(main, parameters, augmented=True, key=key)
        return HyperPINN(main, parameters, self.hidden, init="common", key=key)

    def run(
        self, *, key: PRNGKeyArray, progress: bool, journal: Journal
    ) -> tuple[AbstractModel, dict[str, Any]]:
        """Trains the model; returns it with what its card tells about the training."""
        problem = Lorenz()
        model_key, data_key, key = jr.split(key, 3)
        data = training_set(self.duration, key=data_key)
        true = test_set(self.duration)

        def run(
            stage: Any, model: AbstractModel, key: PRNGKeyArray, name: str
        ) -> tuple[FitResult, dict[str, Any]]:
            options = {"key": key, "progress": progress, "journal": journal}
            one = _adam if isinstance(stage, MultistepAdam) else _gauss_newton
            result = one(stage, model, data, name, options)
            error = field_error(result.model, problem, true)[0]
            return result, {"field_relative_l2": error}

        model, stages = run_stages(
            self.stages, self.build(key=model_key), run, key=key, journal=journal
        )
        forecasts = simulate(
            model, true.lam, true.states[:, :, 0], duration=self.duration
        )
        errors = trajectory_errors(forecasts, true)
        return model, {
            "recipe": self.recipe,
            "equation": self.equation,
            "lambda": problem.parameters.ranges(),
            "initial": problem.initial.ranges(),
            "scheme": SCHEME.name,
            "dt": data.dt,
            "data": "30 lambda (Chebyshev nodes, 5 beta x 6 rho) x 100 trajectories of "
            f"{self.duration:g} s, initial states uniform",
            "stages": stages,
            "error": {
                "set": f"100 trajectories of {self.duration:g} s, lambda and initial "
                "states uniform",
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
        (MultistepGaussNewton(600, frozen_trunk=True),),
    ),
    LorenzExperiment("lorenz-small", _SMALL, None, 39.4, (MultistepGaussNewton(1600),)),
    LorenzExperiment(
        "lorenz-large",
        _LARGE,
        None,
        20.6,
        (
            MultistepAdam(8000),
            MultistepGaussNewton(75, n_windows=150, redraw=20, rank=64),
        ),
    ),
)
LORENZ_PAPER = tuple(
    dataclasses.replace(best, stages=(MultistepAdam(20_000),), recipe="paper")
    for best in LORENZ
)


def _gauss_newton(
    stage: MultistepGaussNewton,
    model: AbstractModel,
    data: Trajectories,
    name: str,
    options: dict,
) -> FitResult:
    return gauss_newton(
        model,
        MultistepLoss(data, SCHEME, np.array(SLOPE.high), n_windows=stage.n_windows),
        steps=stage.steps,
        redraw=stage.redraw,
        rank=stage.rank,
        floor=1e-9,
        frozen=operator.attrgetter("trunk") if stage.frozen_trunk else None,
        name=name,
        **options,
    )


def _adam(
    stage: MultistepAdam,
    model: AbstractModel,
    data: Trajectories,
    name: str,
    options: dict,
) -> FitResult:
    loss = MultistepLoss(data, SCHEME, np.array(SLOPE.high), n_windows=stage.n_windows)
    optimiser = optax.adam(optax.cosine_decay_schedule(stage.rate, stage.steps))
    return in_float32(
        model,
        cast(loss, jnp.float32),
        optimiser,
        steps=stage.steps,
        name=name,
        **options,
    )
