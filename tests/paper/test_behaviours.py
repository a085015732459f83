import numpy as np
import pytest

from hyperpinn_eqx import LongRun
from hyperpinn_eqx.paper import BEHAVIOURS, classify, confusion

DT = 0.1
T = DT * np.arange(1001)


def by_hand(states, exponent=0.0, finished=True):
    """A long run with these states and this exponent all along."""
    growth, one = exponent * T[None], np.array([finished])
    return LongRun(np.ones((1, 1)), states[None], DT, growth, -3 * T[None], one)


def curve(x, y=None):
    none = np.zeros(len(x))
    return np.stack([x, none if y is None else y, none], axis=1)


def settling(switches, level):
    """x changes its sign so often in the first third, then comes to rest."""
    times = np.linspace(0, 33, switches + 1)[1:-1] if switches else []
    sign = (-1.0) ** (switches - np.searchsorted(times, T)) if switches else 1 + 0 * T
    return curve(level + (sign - 1) * (T < 33) * level)


CHAOTIC = curve(np.random.default_rng(0).normal(0, 8, len(T)))
ENDING = curve(np.where(T < 30, T, np.inf))
# Around C+ for ever, slower and slower.
FADING = np.exp(-0.01 * T)
SPIRAL = curve(8 + FADING * np.cos(5 * T), 8 + FADING * np.sin(5 * T))


@pytest.mark.parametrize(
    ("run", "behaviour"),
    [
        (by_hand(curve(0.4 + np.exp(-T)), -0.3), "origin"),
        (by_hand(curve(0 * T)), "origin"),
        (by_hand(curve(8 + np.exp(-T)), -0.3), "fixed points C±"),
        (by_hand(settling(4, 8.0), -0.3), "fixed points C±"),
        (by_hand(SPIRAL, -0.01), "fixed points C±"),
        (by_hand(curve(8 + 0 * T), 0.3), "fixed points C±"),
        (by_hand(settling(12, -8.0), -0.3), "transient chaos"),
        (by_hand(curve(8 * np.sin(T), 8 * np.cos(T)), 1e-4), "limit cycle"),
        (by_hand(CHAOTIC, 0.9), "chaos"),
        (by_hand(CHAOTIC, 0.9, finished=False), "failed"),
        (by_hand(curve(np.nan * T), np.nan, finished=False), "failed"),
        (by_hand(ENDING, np.nan, finished=False), "failed"),
    ],
)
def test_a_run_is_classified_by_what_it_does_in_the_end(run, behaviour):
    assert classify(run) == [behaviour]
    assert behaviour in BEHAVIOURS


def test_confusion_counts_pairs_in_the_order_of_complexity():
    true = ["chaos", "origin", "chaos", "chaos", "limit cycle"]
    found = ["chaos", "origin", "failed", "chaos", "chaos"]
    table = confusion(true, found)
    assert table == {
        "origin": {"origin": 1, "chaos": 0, "failed": 0},
        "limit cycle": {"origin": 0, "chaos": 1, "failed": 0},
        "chaos": {"origin": 0, "chaos": 2, "failed": 1},
    }
    assert list(table) == [b for b in BEHAVIOURS if b in true]
    assert all(list(row) == ["origin", "chaos", "failed"] for row in table.values())
    with pytest.raises(ValueError, match="true has 5 and found 1"):
        confusion(true, found[:1])
