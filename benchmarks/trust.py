"""How large is the error outside the trained range, and who notices?

    OPENBLAS_NUM_THREADS=1 python benchmarks/trust.py [--quick]

For the five shipped families with an exact solution: 64 λ of the trained range and 64
outside, up to a factor of three beyond the ends of a logarithmic range and half of its
width beyond those of a linear one. At each the relative L2 error, and what can be known
without the solution: the residual, the loss, and `estimate_error`. Then the estimate
for single networks, most of them too small, that were trained to their limit.
Record: `book/data/trust.json`. Four minutes on one core.

What we expected, written down before the first run: rank correlations with the error
above 0.9 outside and over all for residual and loss, 0.3 to 0.8 inside; for the
estimate above 0.97 over all, 0.8 inside, and values within a factor of two.
"""

import time
import warnings
from collections.abc import Iterable
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from common import QUICK, told, write
from jaxtyping import ArrayLike
from scipy.stats import spearmanr

import hyperpinn_eqx as hpx
from hyperpinn_eqx.problems.burgers import sine_wave

N, STEPS = (4, 3) if QUICK else (64, 400)
SMALL: tuple[tuple[int, ...], ...] = ((3,), (6,), (4, 4), (8, 8), (8, 8, 8))


class Burgers(hpx.Burgers):
    """Without a limit of ν: at 0.0003, Cole-Hopf's exponents do not yet overflow."""

    def exact(self, t: ArrayLike, x: ArrayLike, nu: ArrayLike) -> np.ndarray:
        return sine_wave(t, x, nu)


FAMILIES: dict[str, hpx.AbstractPDE] = {
    "burgers-hyperpinn": Burgers(),
    "allen-cahn-hyperpinn": hpx.AllenCahn(),
    "transport-hyperpinn": hpx.Transport(),
    "burgers-wave-hyperpinn": hpx.BurgersWave(),
    "plume-hyperpinn": hpx.Plume(),
}
if QUICK:
    FAMILIES = {"transport-hyperpinn": hpx.Transport()}
    SMALL = SMALL[:1]


def wider(box: hpx.Box) -> hpx.Box:
    """The range in which λ are drawn; what is positive stays so."""
    ranges = {}
    for name, (low, high, *kind) in box.ranges().items():
        if kind == ["log"]:
            low, high = low / 3, high * 3
        elif not kind:
            half = (high - low) / 2
            low, high = max(low - half, low / 3 if low > 0 else -np.inf), high + half
        ranges[name] = (low, high, *kind)
    return hpx.Box(**ranges)


def beyond(box: hpx.Box, lams: np.ndarray) -> np.ndarray:
    """How far outside, in units of half the trained range; 0 inside."""
    scaled = np.abs(np.asarray(box.scale(lams)))[:, ~np.array(box.periodic)]
    return np.maximum(scaled.max(axis=1) - 1, 0)


def draw(box: hpx.Box) -> np.ndarray:
    """N values of λ inside and N outside, shape (2N, p)."""
    inside = hpx.latin_hypercube(box, N, key=jr.key(1))
    far = np.asarray(hpx.latin_hypercube(wider(box), 8 * N, key=jr.key(2)))
    return np.concatenate([inside, far[beyond(box, far) > 0][:N]])


@eqx.filter_jit
def witnesses(
    model: hpx.AbstractModel,
    problem: hpx.AbstractPDE,
    lams: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Residual and loss as roots of mean squares, relative to that of u."""
    point_key, edge_key = jr.split(key)
    points = hpx.uniform(problem.domain, (2000,), key=point_key)
    loss = hpx.PINNLoss(problem, n_conditions=400)

    def one(lam: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch = loss.sample(model, key=edge_key, lam=lam[None], points=points[None])
        found = loss(model, batch)
        u = hpx.jets(model(lam), points, (), problem.domain.names).value
        size = jnp.mean(u**2)
        return jnp.sqrt(found.terms["physics"] / size), jnp.sqrt(found.total / size)

    return jax.lax.map(one, lams)


def shown(values: Iterable[float]) -> list[float]:
    """Four digits of each."""
    return [float(f"{value:.4g}") for value in values]


def measure(name: str, model: Any, problem: hpx.AbstractPDE) -> dict[str, Any]:
    """Errors and witnesses of a shipped family, inside and outside."""
    box = problem.parameters
    lams = draw(box)
    flat = lams[:, 0] if len(box) == 1 else lams
    error = hpx.family_error(model, problem, n_t=41, lams=flat).relative_l2
    residual, loss = witnesses(model, problem, jnp.asarray(lams), jr.key(3))

    def estimate() -> np.ndarray:
        return hpx.estimate_error(model, problem, lams=flat, key=jr.key(4)).relative_l2

    found = estimate()
    start = time.perf_counter()
    estimate()
    seconds = (time.perf_counter() - start) / len(lams)
    columns: dict[str, Any] = {"residual": residual, "loss": loss, "estimate": found}
    print(f"{name}: {1e3 * seconds:.0f} ms for an estimate")
    parts = {"inside": slice(0, N), "outside": slice(N, None), "all": slice(None)}
    for part, s in parts.items():
        ranks = [f"{k} {spearmanr(v[s], error[s])[0]:.3f}" for k, v in columns.items()]
        ratio = found[s] / error[s]
        print(
            f"  {part:7} error {np.median(error[s]):.1e}, at most {error[s].max():.1e};"
            f" ranks: {', '.join(ranks)}; estimate / error {ratio.min():.2f} to "
            f"{ratio.max():.2f}"
        )
    return {
        "name": name,
        "weights": model.main.size,
        "seconds": seconds,
        "beyond": shown(beyond(box, lams)),
        "error": shown(error),
        **{k: shown(v) for k, v in columns.items()},
    }


def too_small() -> list[dict[str, Any]]:
    """Single networks for transport, each trained to its limit at one λ."""
    problem, rows = hpx.Transport(), list[dict[str, Any]]()
    lam = np.array([[0.5, 0.01, 1.0]])
    loss = hpx.PINNLoss(problem, n_points=1000)
    for hidden in SMALL:
        spec = hpx.MainNetSpec((2, *hidden, 1), problem.domain)
        start, key = spec.init(key=jr.key(6)), jr.key(7)
        path = hpx.continuation(
            start, loss, lam, first=STEPS, key=key, progress=False
        ).model
        model = hpx.SingleNet(spec.unflatten(path.weights[0]), problem.parameters)
        error = hpx.family_error(model, problem, n_t=41, lams=lam).relative_l2[0]
        found = [
            hpx.estimate_error(model, problem, lams=lam, key=jr.key(i)).relative_l2[0]
            for i in range(5)
        ]
        rows.append(
            {
                "hidden": list(hidden),
                "weights": spec.size,
                "error": float(f"{error:.3g}"),
                "ratio": shown(np.quantile(found / error, [0, 0.5, 1])),
            }
        )
        print(rows[-1])
    return rows


def reference() -> dict:
    """That the exact solution is one, at a ν that `Burgers.exact` refuses."""
    nu, t = 4e-4, np.array([0.5, 1.0])
    n = 64 if QUICK else 8192
    x, u = hpx.burgers_reference(t, nu, n=n, rtol=1e-7)
    gap = np.abs(u - sine_wave(t[:, None], x, nu))
    away = np.abs(x) > 20 * nu
    return {"nu": nu, "difference": float(f"{gap[:, away].max():.1e}")}


def main() -> None:
    """Measures everything and writes the record."""
    warnings.filterwarnings("ignore", ".*outside the trained range")
    print(told())
    record = {
        "families": [
            measure(name, hpx.load_pretrained(name), problem)
            for name, problem in FAMILIES.items()
        ],
        "small": too_small(),
        "reference": reference(),
    }
    print(record["reference"])
    write("trust", record)


if __name__ == "__main__":
    main()
