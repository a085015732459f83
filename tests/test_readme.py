import pathlib
import re

import jax
import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)


@pytest.fixture
def as_a_reader_runs_it():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def test_there_is_python_in_the_readme():
    assert BLOCKS


def test_the_readmes_python_runs_from_top_to_bottom(as_a_reader_runs_it, capsys):
    namespace = {}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"README.md, block {number}", "exec"), namespace)
    assert capsys.readouterr().out
