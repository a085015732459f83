"""Every benchmark runs: whatever is in the folder, on sizes that tell nothing."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# The others are what these share.
SCRIPTS = {
    path.name: source
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if "__main__" in (source := path.read_text("utf-8"))
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_runs_and_leaves_no_record(script, tmp_path):
    # Scripts write beside themselves, and to the folder in which they run.
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "book" / "figures.mplstyle", tmp_path / "book")
    if (ROOT / ".venv-jinns").exists():
        (tmp_path / ".venv-jinns").symlink_to(ROOT / ".venv-jinns")
    before = set(tmp_path.rglob("*"))
    fast = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}", "--quick"],
        cwd=tmp_path,
        # Tests run side by side: a thread for each.
        env={**os.environ, **fast, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(tmp_path.rglob("*")) == before


def test_every_benchmark_says_how_it_is_run():
    assert len(SCRIPTS) > 10
    for script, source in SCRIPTS.items():
        assert f"python benchmarks/{script}" in source and "[--quick]" in source
