"""What the Lorenz system does in the long run, in words."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from .._arguments import MayBeEmpty, checked
from ..dynamics.lyapunov import LongRun

# In the order of rising complexity; the last is no behaviour but a solver's failure.
Behaviour = Literal[
    "origin", "fixed points C±", "transient chaos", "limit cycle", "chaos", "failed"
]
BEHAVIOURS: tuple[Behaviour, ...] = get_args(Behaviour)


@checked
def classify(run: LongRun) -> list[Behaviour]:
    """The behaviour of each run, one of `BEHAVIOURS`.

    What happens in the second half of the run decides. A largest exponent above 0.05
    is chaos. A state that hardly moves any more, or an exponent below -0.005, is a
    fixed point: the origin if it lies within 0.5 of it, C± else, after transient
    chaos if x changed its sign more than five times on the way. What remains is a
    limit cycle. All of it holds for this length of run: transient chaos can outlast
    any.
    """
    behaviours: list[Behaviour] = []
    for states, exponent, finished in zip(
        run.states, run.lyapunov, run.finished, strict=True
    ):
        if not finished:
            behaviours.append("failed")
            continue
        last = states[-max(2, round(10 / run.dt)) :]
        still = np.max(np.ptp(last, axis=0)) < 0.1
        if exponent > 0.05 and not still:
            behaviours.append("chaos")
        elif still or exponent < -0.005:
            turns = np.sum(np.diff(np.sign(states[:, 0])) != 0)
            if np.linalg.norm(states[-1]) < 0.5:
                behaviours.append("origin")
            else:
                behaviours.append("transient chaos" if turns > 5 else "fixed points C±")
        else:
            behaviours.append("limit cycle")
    return behaviours


@checked
def confusion(
    true: MayBeEmpty[Sequence[Behaviour]], found: MayBeEmpty[Sequence[Behaviour]]
) -> dict[Behaviour, dict[Behaviour, int]]:
    """How often each true behaviour (rows) was found as each other (columns).

    Raises:
        ValueError: not as many true as found ones.

    >>> confusion(["chaos", "chaos"], ["chaos", "limit cycle"])["chaos"]
    {'limit cycle': 1, 'chaos': 1}
    """
    if len(true) != len(found):
        raise ValueError(
            f"true has {len(true)} and found {len(found)} behaviours, expected as many"
        )
    table = {}
    for row in (b for b in BEHAVIOURS if b in true):
        seen = [f for t, f in zip(true, found, strict=True) if t == row]
        table[row] = {b: seen.count(b) for b in BEHAVIOURS if b in found}
    return table
