import contextlib
import json
import os
import pathlib
import signal
import threading
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperpinn_eqx import _files as files
from hyperpinn_eqx.training import journal as module
from hyperpinn_eqx.training.journal import Journal, Stopped

CONFIG = {"name": "tiny", "seed": 0, "recipe": {"start": {"steps": 3}, "main": (2, 1)}}
ROWS = [{"step": 1.0, "total": 0.1}, {"step": 2.0, "total": 1e-300}]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tiny.journal"


@pytest.fixture
def state():
    """Arrays of several types, and what is no array."""
    return {
        "weights": [jnp.arange(3) / 3, jnp.ones((2, 2))],
        "count": jnp.asarray(7),
        "activation": jnp.tanh,
        "batch": np.arange(4) / 7,
    }


@pytest.fixture
def saved(path, state):
    """The bytes of a journal with a finished and an unfinished stage."""
    journal = Journal(path, CONFIG, every=0.0)
    journal.finish("first", {"seconds": 1, "sizes": (3, 4)}, state["weights"])
    journal.keep("second", 2, state, ROWS)
    return path.read_bytes()


def empty(state):
    return jax.tree.map(lambda x: 0 * x if eqx.is_array_like(x) else x, state)


def resume(path, config=CONFIG, **options):
    return Journal(path, config, resume=True, **options)


def kill(number=signal.SIGINT):
    os.kill(os.getpid(), number)


def test_stages_come_back(path, saved, state):
    journal = resume(path)
    # What is an array may be a shape.
    shapes = eqx.filter_eval_shape(lambda: state | {"batch": jnp.zeros(())})
    for like in (empty(state), shapes | {"batch": state["batch"]}):
        found, step, rows = journal.restore("second", like)
        assert eqx.tree_equal(found, state)
        assert (step, rows) == (2, ROWS)
    assert journal.finished("first") == {"seconds": 1, "sizes": [3, 4]}
    assert journal.finished("second") is None
    assert eqx.tree_equal(journal.model(empty(state["weights"])), state["weights"])
    # Another stage starts at the beginning.
    assert journal.restore("third", state) == (state, 0, [])


def test_the_model_is_that_of_the_last_stage(path, saved, state):
    journal = resume(path)
    journal.finish("second", {"sizes": (3, 4)}, jnp.full(5, 2.0))
    for this in (journal, resume(path)):
        assert this.finished("first") and this.finished("second") == {"sizes": [3, 4]}
        np.testing.assert_array_equal(this.model(jnp.zeros(5)), np.full(5, 2.0))
        # No state is left of it.
        assert this.restore("second", state) == (state, 0, [])


@pytest.mark.parametrize("again", [False, True])
def test_without_a_file_everything_starts_afresh(again, path, state):
    journal = Journal(path, CONFIG, resume=again)
    assert journal.finished("first") is None
    assert journal.restore("first", state) == (state, 0, [])
    with pytest.raises(ValueError, match="another model"):
        journal.model(state)


def test_every_precision_comes_back_bit_by_bit(path):
    with jax.enable_x64(True):
        wide = jnp.asarray([1 / 3, -0.0, np.nan, 5e-324])
    leaves = [wide, jnp.asarray([0.1]), jnp.asarray([0.1], dtype=jnp.bfloat16)]
    Journal(path, CONFIG, every=0.0).keep("first", 1, leaves, [])
    # Float32 is the default here.
    found, _, _ = resume(path).restore("first", leaves)
    for leaf, expected in zip(found, leaves, strict=True):
        assert leaf.dtype == expected.dtype
        assert np.asarray(leaf).tobytes() == np.asarray(expected).tobytes()


# --- What is no journal of this training ----------------------------------------------


def test_an_unfinished_training_is_never_overwritten(path, saved):
    for config in (CONFIG, {"another": "training"}):
        with pytest.raises(ValueError, match="resume"):
            Journal(path, config)
    assert path.read_bytes() == saved


@pytest.mark.parametrize(
    "other",
    [[jnp.zeros(3)], [jnp.zeros(2, int)], [jnp.zeros(2), jnp.zeros(2)], []],
    ids=["shape", "type", "more", "fewer"],
)
def test_other_arrays_are_an_error(path, other):
    journal = Journal(path, CONFIG, every=0.0)
    journal.finish("first", {}, [jnp.zeros(2)])
    journal.keep("second", 1, [jnp.ones(2)], [])
    for this in (journal, resume(path)):
        with pytest.raises(ValueError, match="another state of 'second'"):
            this.restore("second", other)
        with pytest.raises(ValueError, match="another model"):
            this.model(other)


def test_another_config_is_an_error_that_names_what_differs(path, saved):
    other = CONFIG | {"seed": 1, "recipe": {"start": {"steps": 4}, "main": [2, 1]}}
    with pytest.raises(ValueError) as caught:
        resume(path, other | {"new": None, "extra": [1]})
    said = str(caught.value)
    for part in ("extra = None", "recipe.start.steps = 3, ", "seed = 0, "):
        assert part in said
    assert "name" not in said and "main" not in said and path.read_bytes() == saved
    with pytest.raises(ValueError, match="config"):
        resume(path, {"a": object()})


@pytest.mark.parametrize("finished", [False, True])
def test_what_is_recorded_of_a_stage_has_to_stay(finished, path, state):
    settings = {"steps": 3, "problem": {"class": "A", "residual": "1f"}, "main": (2, 1)}
    other = settings | {"steps": 4, "problem": {"class": "A", "residual": "2e"}}
    journal = Journal(path, CONFIG, every=0.0)
    journal.record("first", settings)
    journal.finish("first", {}, state) if finished else journal.keep("first", 1, 0, [])
    for again in (journal, resume(path)):
        again.record("first", settings)
        with pytest.raises(ValueError, match="residual = '1f'.* steps = 3"):
            again.record("first", other)
        again.record("second", other)


@pytest.mark.parametrize("finished", [False, True])
def test_a_stage_that_something_else_began_is_an_error(finished, path, state):
    journal = Journal(path, CONFIG, every=0.0)
    journal.finish("first", {}, state) if finished else journal.keep("first", 1, 0, [])
    with pytest.raises(ValueError, match="stage 'first'"):
        resume(path).record("first", {"steps": 3})


def test_other_versions_of_the_libraries_are_told(path, saved, monkeypatch):
    other = files.libraries() | {"jax": "99.0"}
    monkeypatch.setattr(files, "libraries", lambda: other)
    with pytest.warns(UserWarning, match="jax = .*99.0"):
        resume(path)


def test_a_damaged_file_is_an_error(path, saved, damaged):
    for content in [*damaged.cut_off(saved, 29), *damaged.flipped(saved, 7)]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="tiny.journal"):
            resume(path)


# --- Writing --------------------------------------------------------------------------


def full(*args):
    raise OSError("disk full")


def test_a_disk_that_is_full_ends_no_training(path, saved, state, monkeypatch):
    journal = resume(path, every=0.0)
    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="step 4 of 'second'"):
        journal.keep("second", 4, state, ROWS)
    with pytest.warns(UserWarning, match="'second'"):
        journal.finish("second", {"mse": 1}, jnp.ones(1))
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == saved
    # The next write that succeeds has everything.
    monkeypatch.undo()
    journal.keep("third", 1, state, ROWS)
    assert os.listdir(path.parent) == [path.name]
    assert resume(path).finished("second") == {"mse": 1}
    assert resume(path).restore("third", empty(state))[1] == 1


def test_a_stop_that_cannot_be_saved_is_an_error(path, state, monkeypatch):
    monkeypatch.setattr(os, "replace", full)
    with Journal(path, CONFIG) as journal:
        kill()
        with pytest.raises(OSError, match="disk full"):
            journal.keep("first", 1, state, ROWS)


@pytest.fixture
def clock(monkeypatch):
    """The journal's clock, set by hand."""
    now = types.SimpleNamespace(seconds=100.0)
    fake = types.SimpleNamespace(perf_counter=lambda: now.seconds)
    monkeypatch.setattr(module, "time", fake)
    return now


def test_writes_keep_their_distance(path, clock):
    journal = Journal(path, CONFIG, every=10.0)
    written = []
    for step in range(1, 36):
        clock.seconds += 1
        journal.keep("first", step, jnp.zeros(1), [])
        with contextlib.suppress(FileNotFoundError):
            written.append(json.loads(path.read_bytes().split(b"\n")[0])["step"])
    assert sorted(set(written)) == [10, 20, 30]


# --- One writer -----------------------------------------------------------------------


def test_a_file_has_one_writer(path, saved, state):
    late = resume(path)
    path.with_name(".tiny.journal.x1y2").write_bytes(b"half, of a killed write")
    with resume(path, every=0.0) as journal:
        with pytest.raises(OSError, match="another process"):
            resume(path).__enter__()
        with Journal(path.with_name("other.journal"), CONFIG):
            pass
        journal.keep("second", 5, state, ROWS)
    # Whoever comes next starts from what is there by then.
    with late:
        assert late.restore("second", empty(state))[1] == 5
    assert os.listdir(path.parent) == [path.name]
    path.write_bytes(b"spoilt")
    with pytest.raises(ValueError, match=r"tiny\.journal"):
        late.__enter__()
    late.discard()
    with resume(path):
        assert os.listdir(path.parent) == [f"{path.name}.lock"]
    late.discard()
    late.close()
    assert os.listdir(path.parent) == []


def test_close_keeps_the_file_and_lets_go_of_the_rest(path, state):
    def mine(*args): ...

    old = signal.signal(signal.SIGTERM, mine)
    try:
        with Journal(path, CONFIG, every=0.0) as journal:
            journal.keep("first", 1, state, ROWS)
            journal.close()
            assert signal.getsignal(signal.SIGTERM) is mine
            # Who comes next is not disturbed by a second close.
            with resume(path) as later:
                handler = signal.getsignal(signal.SIGTERM)
                journal.close()
                assert signal.getsignal(signal.SIGTERM) == handler != mine
                with pytest.raises(OSError, match="another process"):
                    resume(path).__enter__()
                assert later.restore("first", empty(state))[1] == 1
        assert os.listdir(path.parent) == [path.name]
    finally:
        signal.signal(signal.SIGTERM, old)


def test_a_lock_that_cannot_be_removed_while_it_is_held_is_let_go(path, monkeypatch):
    # As on Windows.
    def fail(*args, **options):
        raise PermissionError("in use by another process")

    with Journal(path, CONFIG):
        monkeypatch.setattr(pathlib.Path, "unlink", fail)
    monkeypatch.undo()
    with Journal(path, CONFIG):
        pass


# --- Signals --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("finished", [False, True])
def test_a_signal_stops_at_the_end_of_the_step(number, finished, path, state, capfd):
    with Journal(path, CONFIG) as journal:
        kill(number)
        assert not path.exists() and number.name in capfd.readouterr().err
        with pytest.raises(Stopped, match=f"{number.name}: .*'first'"):
            if finished:
                journal.finish("first", {"mse": 1e-9}, state)
            else:
                journal.keep("first", 2, state, ROWS)
    if finished:
        assert resume(path).finished("first") == {"mse": 1e-9}
    else:
        assert eqx.tree_equal(resume(path).restore("first", empty(state))[0], state)


def test_the_second_interrupt_stops_at_once():
    with pytest.raises(KeyboardInterrupt), Journal("unused", CONFIG):
        kill()
        kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_handlers_come_back(number, path):
    def mine(*args): ...

    old = signal.signal(number, mine)
    try:
        with Journal(path, CONFIG):
            assert signal.getsignal(number) is not mine
            kill(number)
        assert signal.getsignal(number) is mine
        with pytest.raises(RuntimeError), Journal(path, CONFIG):
            raise RuntimeError
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, old)


def test_it_works_off_the_main_thread(path, state):
    found = []

    def work():
        with Journal(path, CONFIG, every=0.0) as journal:
            journal.keep("first", 1, state, ROWS)
            found.append(signal.getsignal(signal.SIGINT))

    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [handler]
    assert resume(path).restore("first", state)[1] == 1
