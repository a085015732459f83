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
from hyperpinn_eqx import paper
from hyperpinn_eqx.paper import lorenz_tables
from hyperpinn_eqx.paper.lorenz_measures import measure, measure_all
from hyperpinn_eqx.paper.recognise import shipped


def plain(value: Any) -> Any:
    """A measurement as JSON has it, with five digits of every number."""
    if isinstance(value, np.ndarray):
        return [plain(entry) for entry in value.tolist()]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    """Measures every row, prints the tables and writes the record."""
    names = shipped(paper.LorenzExperiment)
    models = {name: hpx.load_pretrained(name) for name in names}
    cases, run = common.lorenz_cases()
    if common.QUICK:
        rows = {"exact": measure(hpx.Lorenz(), cases, run, found=run)}
    else:
        rows = measure_all(models, cases, run)
    fields = [field.name for field in dataclasses.fields(paper.LorenzRow)]
    print(common.told())
    print(lorenz_tables.lorenz_table(rows, models))
    print(lorenz_tables.attractor_table(rows, run))
    record = {
        name: {field: plain(getattr(row, field)) for field in fields}
        for name, row in rows.items()
    }
    common.write("lorenz-table", {"rows": record})


if __name__ == "__main__":
    main()
