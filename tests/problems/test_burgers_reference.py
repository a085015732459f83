import sys

import numpy as np
import pytest

from hyperpinn_eqx import Burgers, burgers_reference


def test_diffrax_agrees_with_the_exact_solution():
    nu, t = 0.02, np.array([0.1, 0.5, 1.0])
    x, u = burgers_reference(t, nu)
    assert len(x) >= 5.5 / nu
    exact = Burgers().exact(t[:, None], x, nu)
    np.testing.assert_allclose(u, exact, rtol=0, atol=1e-6)


def test_it_starts_at_the_sine_and_is_float64():
    x, u = burgers_reference(0.0, 0.1, n=16)
    assert x.dtype == u.dtype == np.float64
    np.testing.assert_allclose(u, [-np.sin(np.pi * x)], rtol=0, atol=1e-15)


def test_what_cannot_be_solved_is_an_error(monkeypatch):
    for t in ([0.5, 0.4], [0.5, 0.5], [-0.1, 0.5], [0.5, 1.1], [[0.1], [0.2]]):
        with pytest.raises(ValueError, match=r"\bt\b"):
            burgers_reference(np.array(t), 0.1)
    module = sys.modules["hyperpinn_eqx.problems.burgers_reference"]
    monkeypatch.setattr(module, "_MAX_STEPS", 5)
    with pytest.raises(ValueError, match="rtol"):
        burgers_reference(1.0, 0.1, n=16)
