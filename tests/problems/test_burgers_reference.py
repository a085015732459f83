import sys

import numpy as np
import pytest

from hyperpinn_eqx import Burgers, burgers_reference


def test_diffrax_agrees_with_the_exact_solution():
    nu = 0.01
    t = np.array([0.1, 0.5, 1.0])
    x, u = burgers_reference(t, nu)
    assert len(x) >= 5.5 / nu
    exact = Burgers().exact(t[:, None], x, nu)
    np.testing.assert_allclose(u, exact, rtol=0, atol=1e-6)


def test_it_starts_at_the_sine_and_is_float64():
    x, u = burgers_reference(0.0, 0.1, n=16)
    assert x.dtype == u.dtype == np.float64
    assert u.shape == (1, 16)
    np.testing.assert_allclose(u[0], -np.sin(np.pi * x), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "t",
    [[0.5, 0.4], [0.5, 0.5], [-0.1, 0.5], [0.5, 1.1], [[0.1], [0.2]]],
    ids=str,
)
def test_bad_times_are_errors(t):
    with pytest.raises(ValueError, match="expected increasing times"):
        burgers_reference(np.array(t), 0.1)


def test_a_tolerance_that_takes_too_many_steps_is_an_error(monkeypatch):
    module = sys.modules["hyperpinn_eqx.problems.burgers_reference"]
    monkeypatch.setattr(module, "_MAX_STEPS", 5)
    said = "rtol = 1e-09 takes more than 5 steps, expected .* fewer points than n = 16"
    with pytest.raises(ValueError, match=said):
        burgers_reference(1.0, 0.1, n=16)
