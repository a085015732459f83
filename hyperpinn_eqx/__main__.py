"""The command line: `python -m hyperpinn_eqx train NAME` and `evaluate [NAME …]`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from . import _arguments as checks


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m hyperpinn_eqx")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a model from scratch")
    train.add_argument("name", metavar="NAME")
    train.add_argument("--recipe", choices=("best", "paper"), default="best")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--out", type=pathlib.Path, default=pathlib.Path("trained"))
    train.add_argument(
        "--resume", action="store_true", help="go on where Ctrl-C stopped a training"
    )
    evaluate = commands.add_parser("evaluate", help="print the paper's tables and ours")
    evaluate.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a shipped model or a .eqx file; all shipped models if left out",
    )
    arguments = parser.parse_args(argv)

    from . import paper
    from .training.journal import Stopped
    from .training.result import TrainingStopped

    try:
        if arguments.command == "train":
            known = paper.RECIPES[arguments.recipe]
            checks.choice("name", arguments.name, known)
            experiment = known[arguments.name]
            _, card = paper.train(
                experiment,
                seed=arguments.seed,
                out=arguments.out,
                resume=arguments.resume,
            )
            for name, value in card["error"].items():
                if isinstance(value, float):
                    print(f"{name} = {value:.2e}")
            print(f"saved in {arguments.out / experiment.stem}.eqx and .json")
        else:
            print(paper.report(arguments.names))
    except Stopped as stop:
        print(f"{stop}\nGo on with the same command and --resume.", file=sys.stderr)
        return 130
    except TrainingStopped as error:
        print(f"error: {error.reason}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
