"""The paper's Lorenz data: what the models learn from, and what they are tested on."""

import functools

import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from ..box import Box
from ..dynamics.lyapunov import LongRun, long_run
from ..dynamics.multistep import adams_moulton
from ..dynamics.trajectories import Trajectories, simulate
from ..networks.main import in_float64
from ..physics.sampling import chebyshev_nodes, uniform
from ..problems.lorenz import Lorenz

# Paper eq. 9.
SCHEME = adams_moulton(1)
# Mean ± one standard deviation over the training set, rounded; for the slopes, the
# standard deviation around zero.
STATE = Box(x=(-4.6, 4.6), y=(-4.9, 4.9), z=(2.3, 22.3))
SLOPE = Box(dx=(-18, 18), dy=(-27, 27), dz=(-32, 32))


# One key means one data set, whatever the caller's precision.
@in_float64
def training_set(duration: float = 25.0, *, key: PRNGKeyArray) -> Trajectories:
    """The training data: 100 trajectories for each of 30 λ (paper A.6).

    The paper does not say how the 30 values were chosen. We take the Chebyshev nodes
    of β (5) and ρ (6): they are as many, and leave no corner of the range unseen.
    """
    problem = Lorenz()
    lam = chebyshev_nodes(problem.parameters, (1, 5, 6))
    start = uniform(problem.initial, (len(lam), 100), key=key)
    return simulate(problem, lam, start, duration=duration)


@in_float64
def _test_cases() -> tuple[Array, Array]:
    """100 values of λ, each with its own initial state."""
    problem = Lorenz()
    lam_key, start_key = jr.split(jr.key(2021))
    lam = uniform(problem.parameters, (100,), key=lam_key)
    return lam, uniform(problem.initial, (100,), key=start_key)


@functools.cache
def test_set(duration: float = 25.0) -> Trajectories:
    """The test data: 100 trajectories, each with its own λ and initial state."""
    lam, start = _test_cases()
    return simulate(Lorenz(), lam, start[:, None], duration=duration)


@functools.cache
def true_run(duration: float = 200.0) -> LongRun:
    """The exact family's long runs from the test set's initial states."""
    return long_run(Lorenz(), *_test_cases(), duration=duration)
