"""The command line: `python -m hyperpinn_eqx train NAME` and `evaluate [NAME …]`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m hyperpinn_eqx")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a model from scratch")
    train.add_argument("name")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--out", type=pathlib.Path, default=pathlib.Path("trained"))
    evaluate = commands.add_parser(
        "evaluate", help="print the paper's Table 1 and ours"
    )
    evaluate.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a shipped model or a .eqx file; all shipped models if left out",
    )
    arguments = parser.parse_args(argv)

    # Before any array is made: training and evaluation are in float64.
    jax.config.update("jax_enable_x64", True)
    from . import experiments, tables

    try:
        if arguments.command == "train":
            _, card = experiments.train(
                arguments.name, seed=arguments.seed, out=arguments.out
            )
            print(f"{arguments.name}: mean squared error {card['error']['mse']:.2e}")
            print(f"saved in {arguments.out / arguments.name}.eqx and .json")
        else:
            print(tables.burgers_tables(arguments.names))
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
