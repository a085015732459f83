import math

import numpy as np

import hyperpinn_eqx as hpx

exact = hpx.Plume().exact


def test_the_cloud_drifts_with_the_wind_and_keeps_its_mass(x64):
    x = np.linspace(-3, 3, 121)
    t, lam = np.array([0.0, 0.5, 1.0]), np.array([0.02, 2.0])
    D, θ = lam
    grid = np.meshgrid(t, x, x, indexing="ij", sparse=True)
    u = np.asarray(exact(*grid, lam))
    mass = u.sum((1, 2)) * 0.05**2
    np.testing.assert_allclose(mass, [2 * math.pi / 16] * 3, rtol=1e-10)
    across = np.sum(u * x[:, None], (1, 2)) * 0.05**2 / mass
    np.testing.assert_allclose(across, np.cos(θ) * t / 2, rtol=0, atol=1e-9)
    variance = np.sum(u * x**2, (1, 2)) * 0.05**2 / mass - (np.sin(θ) * t / 2) ** 2
    np.testing.assert_allclose(variance, 1 / 16 + 2 * D * t, rtol=1e-8)
    np.testing.assert_allclose(exact(0, 0.25, 0, lam), math.exp(-1 / 2), rtol=1e-14)


def test_the_wind_may_turn_all_the_way_round(x64):
    there, back = (
        exact(0.7, 0.2, -0.4, np.array([0.01, θ])) for θ in (0.3, 0.3 + 4 * math.pi)
    )
    np.testing.assert_allclose(there, back, rtol=1e-13)
