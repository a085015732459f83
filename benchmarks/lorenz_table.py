"""What the shipped Lorenz models can do, beside what nothing could do better.

    python benchmarks/lorenz_table.py [--quick]

Prints the tables that `python -m hyperpinn_eqx evaluate` prints, and keeps the
measurements of every row in `book/data/lorenz-table.json`, which the chapter shows.
One minute on two cores.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import common

import hyperpinn_eqx as hpx
from hyperpinn_eqx import experiments, lorenz_tables, tables


def plain(value: Any) -> Any:
    """A measurement as JSON has it, with five digits of every number."""
    if isinstance(value, np.ndarray):
        return [plain(entry) for entry in value.tolist()]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    """Measures every row, prints the tables and writes the record."""
    names = tables.shipped(experiments.LorenzExperiment)
    models = {name: hpx.load_pretrained(name) for name in names}
    if common.QUICK:
        common.short_lorenz_runs()
        found = lorenz_tables.true_run()
        rows = {"exact": lorenz_tables.measure(hpx.Lorenz(), found=found)}
    else:
        rows = lorenz_tables.measure_all(models)
    fields = [field.name for field in dataclasses.fields(lorenz_tables.LorenzRow)]
    print(common.told())
    print(lorenz_tables.lorenz_table(rows, models))
    print(lorenz_tables.attractor_table(rows))
    record = {
        name: {field: plain(getattr(row, field)) for field in fields}
        for name, row in rows.items()
    }
    common.write("lorenz-table", {"rows": record})


if __name__ == "__main__":
    main()
