"""What `python -m hyperpinn_eqx evaluate` prints."""

from collections.abc import Callable, Sequence

from .burgers import BurgersExperiment
from .families import FamilyExperiment
from .lorenz import LorenzExperiment
from .lorenz_tables import lorenz_tables
from .recognise import load_models, recognise_all, shipped
from .tables import burgers_tables, family_tables

# From models, their experiments and their cards, each by name.
_TABLES: dict[type, Callable[..., str]] = {
    BurgersExperiment: lambda models, known, _: burgers_tables(models, known),
    LorenzExperiment: lambda models, known, _: lorenz_tables(models, known),
    FamilyExperiment: family_tables,
}


def report(names: Sequence[str] = ()) -> str:
    """The tables of models, each among those of its equation.

    Args:
        names: shipped models by name, or `.eqx` files by path; every shipped model if
            empty.

    Raises:
        ValueError: an unknown name, a damaged file, or a model of an equation that no
            experiment is about.
        FileNotFoundError: no such file.
    """
    names = names or [name for kind in _TABLES for name in shipped(kind)]
    models, cards = load_models(names)
    known = recognise_all(models, cards)
    groups = {
        kind: [name for name in known if isinstance(known[name], kind)]
        for kind in _TABLES
    }
    return "\n\n".join(
        _TABLES[kind](*({n: each[n] for n in group} for each in (models, known, cards)))
        for kind, group in groups.items()
        if group
    )
