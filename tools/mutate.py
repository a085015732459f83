"""Mutation testing: are there tests that notice when the code is wrong?

    make mutate [MODULES="networks.jets physics.pinn"]

Every operator, comparison, number and condition of a module is changed, one at a time,
in a copy (by cosmic-ray); a change that no test of that module notices has survived.
Prints the survivors, and the share of changes that were noticed. It takes about an hour
on two cores.

Also the server that runs the tests: it imports the libraries once, and forks a process
for every change before JAX has started (`--serve SOCKET`, `--ask SOCKET TESTS`).
"""

import os
import pathlib
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).parent.parent
WORK = ROOT / "_build" / "mutate"
# Each with the files of its tests.
MODULES = {
    "loss": ["tests/test_loss.py"],
    "networks.jets": ["tests/networks/test_jets.py"],
    "networks.hyper": ["tests/networks/test_hyper.py"],
    "physics.pinn": ["tests/physics/test_pinn.py"],
    "dynamics.multistep": ["tests/dynamics/test_multistep.py"],
    "dynamics.bias": ["tests/dynamics/test_bias.py"],
    "training.gauss_newton": ["tests/training/test_gauss_newton.py"],
    "training.linear_system": ["tests/training/test_linear_system.py"],
    "dynamics.loss": ["tests/dynamics/test_loss.py"],
}
# One change for each operator, not ten: "+" becomes "-", "<" becomes "<=", a number one
# more and one less. Types stand in annotations as a | b: left alone.
CONFIG = """
[cosmic-ray]
module-path = "hyperpinn_eqx/{path}.py"
timeout = 200.0
excluded-modules = []
test-command = "{python} -IS {this} --ask {socket} {tests}"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = [
  "core/ReplaceBinaryOperator_(?!Add_Sub|Sub_Add|Mul_Div|Div_Mul|Pow_Mul|FloorDiv_Mul)",
  "core/ReplaceComparisonOperator_(?!Eq_NotEq|NotEq_Eq|Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Is_)",
  "core/ReplaceComparisonOperator_Is(Not)?_(?!Is)",
  "core/ReplaceUnaryOperator_(?!USub_UAdd|Delete_Not)",
  "core/Variable",
]
"""
RESULTS = """
select operator_name, start_pos_row, test_outcome, diff
from mutation_specs join work_results using (job_id)
where worker_outcome != 'SKIPPED' order by start_pos_row
"""


def serve(address: str) -> None:
    """Runs tests for whoever asks, each in a process of its own."""
    import diffrax  # noqa: F401
    import equinox  # noqa: F401
    import hypothesis  # noqa: F401
    import optax  # noqa: F401
    import pytest

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        while True:
            connection, _ = server.accept()
            tests = connection.makefile().readline().split()
            if child := os.fork():
                with connection:
                    watch(child, connection)
                continue
            sys.path.insert(0, "")
            # That a library is there before pytest is what this is about.
            quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
            status = 3
            try:
                status = pytest.main(
                    ["-q", "-x", "-p", "no:cacheprovider", *quiet, *tests]
                )
            finally:
                os._exit(status)


def watch(child: int, connection: socket.socket) -> None:
    """Tells the exit status of a process, or kills it when nobody listens any more."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            return
        if select.select([connection], [], [], 0.02)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return


def ask(address: str, tests: list[str]) -> int:
    """Has a server run files of tests, and returns its exit status."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        server.sendall(f"{' '.join(tests)}\n".encode())
        return int(server.makefile().readline())


def mutate(module: str) -> str:
    """Tries every change of a module; the survivors and the score as text."""
    copy, address = WORK / module, f"/tmp/mutate-{os.getpid()}-{module}"
    tests = MODULES[module]
    copy.mkdir(parents=True)
    for name in ("hyperpinn_eqx", "tests", "pyproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(
            ROOT / name, copy / name
        )
    text = CONFIG.format(
        path=module.replace(".", "/"),
        python=sys.executable,
        this=__file__,
        socket=address,
        tests=" ".join(tests),
    )
    (copy / "config.toml").write_text(text)
    # What a change leaves alone is compiled only once.
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(WORK / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, "--serve", address],
        cwd=copy,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not pathlib.Path(address).exists():
            time.sleep(0.1)
        if status := ask(address, tests):
            raise RuntimeError(f"{module}: tests fail without any change ({status})")
        tools = pathlib.Path(sys.executable).parent
        for command in (
            ["cosmic-ray", "init", "config.toml", "session.sqlite"],
            ["cr-filter-operators", "session.sqlite", "config.toml"],
            ["cosmic-ray", "exec", "config.toml", "session.sqlite"],
        ):
            subprocess.run([tools / command[0], *command[1:]], cwd=copy, check=True)
    finally:
        server.terminate()
        server.wait()
        pathlib.Path(address).unlink(missing_ok=True)
    found = sqlite3.connect(copy / "session.sqlite").execute(RESULTS).fetchall()
    alive = [change for change in found if change[2] == "SURVIVED"]
    lines = [f"\n{operator}, line {row}\n{diff}" for operator, row, _, diff in alive]
    noticed = len(found) - len(alive)
    share = f"{noticed} of {len(found)} changes noticed: {noticed / len(found):.1%}"
    return "\n".join([*lines, f"\n=== {module}: {share}"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    elif sys.argv[1:2] == ["--ask"]:
        sys.exit(ask(sys.argv[2], sys.argv[3:]))
    else:
        modules = sys.argv[1:] or [*MODULES]
        if unknown := sorted({*modules} - {*MODULES}):
            sys.exit(f"{unknown[0]}: expected one of {', '.join(MODULES)}")
        shutil.rmtree(WORK, ignore_errors=True)
        with ThreadPoolExecutor(2) as pool:
            for text in pool.map(mutate, modules):
                print(text, flush=True)
