import numpy as np

import hyperpinn_eqx as hpx


def test_the_front_starts_at_one_and_moves_with_its_speed(x64):
    t = np.array([0.0, 1.0, 4.0])
    for D in (0.01, 0.2, 1.0):
        there = 1 + 3 * np.sqrt(D / 2) * t
        middle = hpx.AllenCahn().exact(t, there, D)
        np.testing.assert_allclose(middle, [0.5] * 3, rtol=1e-12)
