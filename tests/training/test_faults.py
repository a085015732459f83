"""Trainings that are killed, or run twice at once, in processes of their own."""

import concurrent.futures
import math
import os
import random
import select
import signal
import subprocess
import sys
import time

import pytest

from hyperpinn_eqx import _files as files
from hyperpinn_eqx.training.journal import Journal

pytestmark = pytest.mark.slow
TRAINING, MODEL = "hyperpinn_eqx training", "hyperpinn_eqx model"
# Has imported everything, but computed nothing, when it forks a training for each line
# it reads. Every chunk of Adam and every step of Gauss-Newton is written.
SERVER = """
import functools, os, sys, traceback
import jax
from hyperpinn_eqx import Journal, family_error, paper
from hyperpinn_eqx.paper import Adam, BurgersExperiment, GaussNewton, burgers
from hyperpinn_eqx.physics.metrics import EvaluationSet

module = sys.modules["hyperpinn_eqx.paper.train"]
jax.config.update("jax_platforms", "cpu")
# What every run compiles is the same.
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
module.Journal = functools.partial(Journal, every=0.0)
coarse = {"n_lam": 3, "n_t": 4, "n_x": 5}
burgers.family_error = functools.partial(family_error, **coarse)
burgers.EvaluationSet = functools.partial(EvaluationSet, **coarse)
burgers.Adam, size = Adam, {"n_lam": 3, "n_points": 8}
tiny = BurgersExperiment(
    "tiny",
    (2, 3, 1),
    None,
    1.0,
    (Adam(2_000, **size), GaussNewton(40, redraw=2, **size)),
    n_conditions=6,
)
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            paper.train(tiny, out=line.strip(), resume=True, progress=False)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Server:
    """Runs trainings in processes of their own, without importing JAX for each."""

    def __init__(self, cache):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER, cache],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def train(self, folder, seconds=math.inf):
        """Trains in a folder; SIGKILL some seconds after it first wrote its file.

        Returns the exit status, and for how long there was a file. Meanwhile the file
        is read again and again.
        """
        print(folder, file=self.process.stdin, flush=True)
        child = int(self.process.stdout.readline())
        output, first, now = self.process.stdout, math.inf, 0.0
        while not select.select([output], [], [], 0.01)[0]:
            now = time.perf_counter()
            if look(folder):
                first = min(first, now)
            if now - first >= seconds:
                os.kill(child, signal.SIGKILL)
                break
        return int(output.readline()), now - first

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def look(folder):
    """The step that the training's file holds, if it is there: it must be whole."""
    try:
        head, _ = files.read(folder / "tiny.journal", TRAINING)
    except FileNotFoundError:
        return None
    return head["stage"], head["step"], len(head["finished"])


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two of them, for two cores."""
    cache = tmp_path_factory.mktemp("cache")
    running = [Server(str(cache)) for _ in range(2)]
    yield running
    for server in running:
        server.close()


@pytest.fixture(scope="module")
def unkilled(servers, tmp_path_factory):
    """The weights of the training that nobody kills, and how long it writes."""
    for name in ("first", "second"):  # the first has to compile
        folder = tmp_path_factory.mktemp(name)
        status, seconds = servers[0].train(folder)
        assert status == 0
    assert {file.name for file in folder.iterdir()} == {"tiny.eqx", "tiny.json"}
    return files.read(folder / "tiny.eqx", MODEL)[1], seconds


def test_a_training_killed_at_any_moment_goes_on_to_the_same_bits(
    servers, unkilled, tmp_path
):
    expected, duration = unkilled
    moments = random.Random(6)
    seconds = [moments.uniform(0, 1) * duration for _ in range(8)]

    def kill_and_resume(server, indices):
        stopped = []
        for i in indices:
            folder = tmp_path / str(i)
            folder.mkdir()
            # Who comes after the end kills nobody, and has to try an earlier moment.
            while server.train(folder, seconds[i])[0] == 0:
                seconds[i] /= 2
                (folder / "tiny.eqx").unlink()
            stopped.append(look(folder))
            assert server.train(folder)[0] == 0
            assert files.read(folder / "tiny.eqx", MODEL)[1] == expected
            # Nothing is left over, neither a lock nor half a file.
            assert {f.name for f in folder.iterdir()} == {"tiny.eqx", "tiny.json"}
        return stopped

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        halves = pool.map(kill_and_resume, servers, (range(4), range(4, 8)))
        stopped = [where for half in halves for where in half]
    # There was something to lose, in both stages.
    assert len(stopped) == 8 and None not in stopped
    assert {finished for _, _, finished in stopped} >= {0, 1}


def test_a_training_killed_again_and_again_ends_at_the_same_bits(
    servers, unkilled, tmp_path
):
    expected, duration = unkilled
    for part in (0.0, 0.3, 0.1, 0.2):
        if servers[0].train(tmp_path, part * duration)[0] == 0:
            break
    else:
        assert servers[0].train(tmp_path)[0] == 0
    assert files.read(tmp_path / "tiny.eqx", MODEL)[1] == expected


def test_two_trainings_of_one_model_in_one_folder(servers, tmp_path):
    with Journal(tmp_path / "tiny.journal", {"a": 1}) as journal:
        assert servers[0].train(tmp_path)[0] != 0
        journal.finish("0", {}, 1.0)
    assert look(tmp_path) == (None, 0, 1)
    assert os.listdir(tmp_path) == ["tiny.journal"]
