"""Trainings that are killed, cut off from their disk, or run twice at once."""

import concurrent.futures
import math
import os
import random
import select
import signal
import subprocess
import sys
import time

import jax
import pytest

from hyperpinn_eqx import _files as files
from hyperpinn_eqx.__main__ import main
from hyperpinn_eqx.training.journal import Journal

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
jax.config.update("jax_enable_x64", True)
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
    (Adam(6_000, **size), GaussNewton(80, redraw=2, **size)),
    n_data=(6, 8),
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


@pytest.mark.slow
def test_a_training_killed_at_any_moment_goes_on_to_the_same_bits(
    servers, unkilled, tmp_path
):
    expected, duration = unkilled
    moments = random.Random(6)
    seconds = [moments.uniform(0, 1) * duration for _ in range(20)]

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
        halves = pool.map(kill_and_resume, servers, (range(10), range(10, 20)))
        stopped = [where for half in halves for where in half]
    print(f"\nkilled at (stage, step, finished stages): {stopped}")
    # There was something to lose, in both stages.
    assert len(stopped) == 20 and None not in stopped
    assert {finished for _, _, finished in stopped} >= {0, 1}


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_trainings_of_one_model_in_one_folder(servers, tmp_path):
    journal = Journal(tmp_path / "tiny.journal", {"a": 1})
    with journal:
        assert servers[0].train(tmp_path)[0] != 0
        journal.finish("0", {}, 1.0)
    assert look(tmp_path) == (None, 0, 1)
    assert os.listdir(tmp_path) == ["tiny.journal"]


@pytest.fixture
def ordinary_user():
    """Root may write anywhere: for the length of a test this process is nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_read_only_folder_is_an_error_before_the_training(tmp_path, ordinary_user):
    folder = tmp_path / "folder"
    if os.geteuid() != 65534:
        folder.mkdir(mode=0o555)
    else:
        folder = tmp_path  # root's own
    with pytest.raises(PermissionError, match=r"tiny.journal"):
        Journal(folder / "tiny.journal", {}).__enter__()


# Files that may not grow beyond a limit, as on a full disk. In a process of its own:
# the output of this one may be a file as well.
FULL_DISK = """
import errno, os, pathlib, resource, sys, warnings
from hyperpinn_eqx import Journal
from hyperpinn_eqx import _files as files

def limit(size):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

path = pathlib.Path(sys.argv[1])
with Journal(path, {}, every=0.0) as journal:
    journal.keep("first", 1, "", [])
    whole = path.read_bytes()
    limit(len(whole) // 2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        journal.keep("first", 2, "", [])
    assert "step 2 of 'first' could not be saved" in str(told[0].message), told
    assert path.read_bytes() == whole
    try:
        files.write(path, "hyperpinn_eqx model", {}, bytes(5000))
    except OSError as error:
        assert error.errno == errno.EFBIG
        assert path.read_bytes() == whole
    else:
        raise AssertionError("a file beyond the limit was written")
    limit(10 * len(whole))
    journal.keep("first", 3, "", [])
assert files.read(path, "hyperpinn_eqx training")[0]["step"] == 3
assert os.listdir(path.parent) == [path.name]
"""


@pytest.mark.slow
def test_a_full_disk_ends_no_training_and_spoils_no_file(tmp_path):
    path = str(tmp_path / "tiny.journal")
    command = [sys.executable, "-c", FULL_DISK, path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# What can lie where a training's file should be, and what the command line says.
DAMAGES = {
    "cut off": (lambda whole: whole[: len(whole) // 2], "not a hyperpinn_eqx training"),
    "last byte missing": (lambda whole: whole[:-1], "damaged"),
    "one bit flipped": (
        lambda whole: whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:],
        "damaged",
    ),
    "empty": (lambda whole: b"", "not a hyperpinn_eqx training"),
    "a picture": (lambda whole: b"\x89PNG\r\n\x1a\n", "not a hyperpinn_eqx training"),
    "another version": (
        lambda whole: whole.replace(b'"version": 2', b'"version": 3'),
        "format version 3, expected 2",
    ),
    "another training": (lambda whole: whole, "another training: name = "),
}


@pytest.fixture
def mode():
    """The command line turns float64 on for good; here it is turned off again."""
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_the_command_line_says_of_a_file_it_cannot_resume(
    damage, tmp_path, capsys, mode
):
    path = tmp_path / "lorenz-small.journal"
    Journal(path, {"name": "other"}).finish("0", {}, 1.0)
    spoil, said = DAMAGES[damage]
    path.write_bytes(found := spoil(path.read_bytes()))
    arguments = ["train", "lorenz-small", "--resume", "--out", str(tmp_path)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ") and said in error
    assert path.read_bytes() == found and os.listdir(tmp_path) == [path.name]
