import contextlib
import json
import os
import pathlib
import signal
import threading
import tracemalloc
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import _files as files
from hyperpinn_eqx import load
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


def test_an_unfinished_stage_comes_back(path, saved, state):
    found, step, rows = resume(path).restore("second", empty(state))
    assert eqx.tree_equal(found, state)
    assert (step, rows) == (2, ROWS)


def test_the_skeleton_may_be_shapes(path, saved, state):
    shapes = eqx.filter_eval_shape(lambda: state | {"batch": jnp.zeros(())})
    found, _, _ = resume(path).restore("second", shapes | {"batch": state["batch"]})
    assert eqx.tree_equal(found, state)


def test_a_finished_stage_comes_back(path, saved, state):
    journal = resume(path)
    assert journal.finished("first") == {"seconds": 1, "sizes": [3, 4]}
    assert journal.finished("second") is None
    assert eqx.tree_equal(journal.model(empty(state["weights"])), state["weights"])


def test_what_is_told_is_the_same_before_and_after_a_stop(path):
    journal = Journal(path, CONFIG)
    journal.finish("first", {"sizes": (3, 4)}, jnp.zeros(2))
    assert journal.finished("first") == resume(path).finished("first")


def test_the_model_is_that_of_the_last_stage(path, saved):
    journal = resume(path)
    journal.finish("second", {}, jnp.full(5, 2.0))
    again = resume(path)
    assert again.finished("first") and again.finished("second") == {}
    np.testing.assert_array_equal(again.model(jnp.zeros(5)), np.full(5, 2.0))


def test_a_finished_stage_leaves_no_state(path, saved, state):
    journal = resume(path)
    journal.finish("second", {}, jnp.zeros(1))
    for this in (journal, resume(path)):
        assert this.restore("second", state) == (state, 0, [])


def test_other_stages_start_at_the_beginning(path, saved, state):
    assert resume(path).restore("third", state) == (state, 0, [])


@pytest.mark.parametrize("resume", [False, True])
def test_without_a_file_everything_starts_afresh(resume, path, state):
    journal = Journal(path, CONFIG, resume=resume)
    assert journal.finished("first") is None
    assert journal.restore("first", state) == (state, 0, [])
    with pytest.raises(ValueError, match="tiny.journal: another model"):
        journal.model(state)


def test_an_unfinished_training_is_never_overwritten(path, saved):
    for config in (CONFIG, {"another": "training"}):
        with pytest.raises(ValueError, match="resume = False, but .*journal holds"):
            Journal(path, config)
    assert path.read_bytes() == saved


def test_other_versions_of_the_libraries_are_told(path, saved, monkeypatch):
    other = files.libraries() | {"jax": "99.0"}
    monkeypatch.setattr(files, "libraries", lambda: other)
    with pytest.warns(UserWarning, match=r"jax = .*, expected '99.0'\): the"):
        resume(path)


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
        with pytest.raises(ValueError, match="tiny.journal: another state of 'second'"):
            this.restore("second", other)
        with pytest.raises(ValueError, match="tiny.journal: another model"):
            this.model(other)


def test_another_config_is_an_error_that_names_what_differs(path, saved):
    other = {
        "name": "tiny",
        "seed": 1,
        "recipe": {"start": {"steps": 4}, "main": [2, 1]},
        "new": None,
        "extra": [1],
    }
    with pytest.raises(ValueError, match="tiny.journal: another training") as caught:
        resume(path, other)
    said = str(caught.value).split("another training: ")[1].split("; ")
    assert said == [
        "extra = None, expected [1]",
        "recipe.start.steps = 3, expected 4",
        "seed = 0, expected 1",
    ]
    assert path.read_bytes() == saved


def test_a_file_cut_off_anywhere_is_an_error(path, saved, damaged):
    for content in damaged.cut_off(saved, 29):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="tiny.journal: (damaged|not a)"):
            resume(path)


def test_a_flipped_bit_anywhere_is_an_error(path, saved, damaged):
    for content in damaged.flipped(saved, 3):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="tiny.journal: .*(damaged|expected)"):
            resume(path)


def test_a_journal_is_no_model(path, saved):
    with pytest.raises(ValueError, match="format 'hyperpinn_eqx training', expected"):
        load(path)


def test_the_first_line_is_json(saved):
    head = json.loads(saved.split(b"\n")[0])
    assert head["config"] == json.loads(json.dumps(CONFIG))
    assert (head["stage"], head["step"], head["rows"]) == ("second", 2, ROWS)


def test_nothing_but_the_journal_is_left_behind(path, saved, state, monkeypatch):
    journal = resume(path, every=0.0)
    journal.keep("second", 3, state, ROWS)
    assert os.listdir(path.parent) == [path.name]

    def fail(*args):
        raise OSError("disk full")

    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.warns(UserWarning, match="step 4 of 'second' could not be saved .disk"):
        journal.keep("second", 4, state, ROWS)
    with pytest.warns(UserWarning, match="finished stage 'second' could not be saved"):
        journal.finish("second", {"mse": 1}, jnp.ones(1))
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before
    # The next write that succeeds has everything.
    monkeypatch.undo()
    journal.keep("third", 1, state, ROWS)
    assert resume(path).finished("second") == {"mse": 1}
    assert resume(path).restore("third", empty(state))[1] == 1


def test_a_stop_that_cannot_be_saved_is_an_error(path, state, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with Journal(path, CONFIG) as journal:
        kill()
        with pytest.raises(OSError, match="disk full"):
            journal.keep("first", 1, state, ROWS)


def test_a_file_has_one_writer(path, saved, state):
    with resume(path) as journal:
        with pytest.raises(OSError, match="tiny.journal: another process is"):
            resume(path).__enter__()
        with Journal(path.with_name("other.journal"), CONFIG):
            pass
        journal.keep("second", 3, state, ROWS)
    # Whoever comes next starts from what is there by then.
    with resume(path):
        pass
    assert os.listdir(path.parent) == [path.name]


def test_a_journal_looks_again_when_it_becomes_the_writer(path, saved, state):
    late = resume(path)
    with resume(path, every=0.0) as journal:
        journal.keep("second", 5, state, ROWS)
    with late:
        assert late.restore("second", empty(state))[1] == 5
    path.write_bytes(b"spoilt")
    with pytest.raises(ValueError, match="not a hyperpinn_eqx training"):
        late.__enter__()
    path.unlink()
    with resume(path):
        assert os.listdir(path.parent) == [f"{path.name}.lock"]


def test_what_a_killed_write_left_is_removed(path, saved):
    path.with_name(".tiny.journal.x1y2").write_bytes(b"half")
    with resume(path):
        pass
    assert os.listdir(path.parent) == [path.name]


def test_junk(throw_junk_at, path):
    throw_junk_at(
        hpx.Journal,
        path=path,
        config={},
        resume=True,
        every=1.0,
        only=["config", "resume", "every"],
    )
    for bad in (None, 3, object()):
        with pytest.raises(TypeError, match="path = .*, expected a str or"):
            Journal(bad, {})


def test_discard_removes_the_file(path, saved):
    journal = resume(path)
    journal.discard()
    journal.discard()
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


def test_close_without_a_with_block_does_nothing(path, saved):
    resume(path).close()
    assert path.read_bytes() == saved


def test_a_lock_that_cannot_be_removed_while_it_is_held_is_let_go(path, monkeypatch):
    # As on Windows.
    def fail(*args, **options):
        raise PermissionError("in use by another process")

    with Journal(path, CONFIG):
        monkeypatch.setattr(pathlib.Path, "unlink", fail)
    monkeypatch.undo()
    with Journal(path, CONFIG):
        pass


def test_what_is_recorded_of_a_stage_has_to_stay(path, state):
    settings = {"steps": 3, "problem": {"class": "A", "residual": "1f"}, "main": (2, 1)}
    journal = Journal(path, CONFIG, every=0.0)
    journal.record("first", settings)
    journal.keep("first", 1, state, ROWS)
    for again in (journal, resume(path)):
        again.record("first", settings)
        other = {
            "steps": 4,
            "problem": {"class": "A", "residual": "2e"},
            "main": (2, 1),
        }
        with pytest.raises(ValueError, match="another training: ") as caught:
            again.record("first", other)
        said = str(caught.value).split("another training: ")[1].split("; ")
        assert said == [
            "problem.residual = '1f', expected '2e'",
            "steps = 3, expected 4",
        ]
        # It holds for a stage that is over, and for no other one.
        again.record("second", other)
        again.finish("first", {}, jnp.zeros(1))
        with pytest.raises(ValueError, match="steps = 3, expected 4"):
            resume(path).record("first", other)


@pytest.mark.parametrize("finished", [False, True])
def test_a_stage_that_something_else_began_is_an_error(finished, path, state):
    journal = Journal(path, CONFIG, every=0.0)
    if finished:
        journal.finish("first", {}, jnp.zeros(1))
    else:
        journal.keep("first", 1, state, ROWS)
    with pytest.raises(ValueError, match="stage 'first'"):
        resume(path).record("first", {"steps": 3})
    resume(path).record("second", {"steps": 3})


def test_arrays_that_a_small_file_only_claims_cost_nothing(path, saved):
    head, content = files.read(path, "hyperpinn_eqx training")
    claim = content.replace(
        b"'shape': (2, 2), }             ", b"'shape': (2, 2000000000), }    "
    )
    assert claim != content
    own = ("format", "version", "libraries", "sha256")
    head = {name: value for name, value in head.items() if name not in own}
    files.write(path, "hyperpinn_eqx training", head, claim)
    like = [jnp.zeros(3), jax.ShapeDtypeStruct((2, 2_000_000_000), jnp.float32)]
    tracemalloc.start()
    with pytest.raises(ValueError, match="another model: an array of shape"):
        resume(path).model(like)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


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


def test_a_request_to_stop_and_a_finished_stage_are_written_at_once(path, clock):
    with Journal(path, CONFIG) as journal:
        journal.finish("first", {}, jnp.zeros(1))
        assert resume(path).finished("first") == {}
        kill()
        with pytest.raises(Stopped):
            journal.keep("second", 1, jnp.zeros(1), [])
    assert resume(path).restore("second", jnp.zeros(1))[1] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_the_end_of_the_step(number, path, state, capfd):
    with Journal(path, CONFIG) as journal:
        kill(number)
        assert not path.exists()
        assert f"{number.name}: stopping after this step" in capfd.readouterr().err
        with pytest.raises(Stopped) as caught:
            journal.keep("first", 2, state, ROWS)
    assert str(caught.value) == f"{number.name}: step 2 of 'first' is saved in {path}"
    assert eqx.tree_equal(resume(path).restore("first", empty(state))[0], state)


def test_a_signal_between_the_last_step_and_the_end_of_a_stage_stops_there(path):
    with Journal(path, CONFIG) as journal:
        kill()
        with pytest.raises(Stopped, match="the finished stage 'first' is saved in"):
            journal.finish("first", {"mse": 1e-9}, jnp.ones(1))
    assert resume(path).finished("first") == {"mse": 1e-9}


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
