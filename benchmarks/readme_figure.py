"""Draws the figure of the README from the shipped weights.

python benchmarks/readme_figure.py [--quick]
"""

from pathlib import Path

import matplotlib.pyplot as plt
from common import folder

import hyperpinn_eqx as hpx

root = Path(__file__).parents[1]


def main() -> None:
    """Writes assets/burgers.png."""
    plt.style.use(root / "book" / "figures.mplstyle")
    model = hpx.load_pretrained("burgers-hyperpinn")
    fig, axes = plt.subplots(1, 3, sharey=True, figsize=(7.2, 2.4))
    for ax, nu in zip(axes, (0.1, 0.01, 0.002), strict=True):
        nets = {"HyperPINN": model(nu)}
        hpx.plot_slices([ax], nu, nets, times=(1.0,), problem=hpx.Burgers())
        ax.set_title(rf"$\nu = {nu}$")
        ax.label_outer()
    axes[0].legend(loc="lower left")
    assets = folder(root / "assets")
    assets.mkdir(exist_ok=True)
    fig.savefig(assets / "burgers.png", dpi=144)


if __name__ == "__main__":
    main()
