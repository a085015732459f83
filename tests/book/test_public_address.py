"""The one setting that needs the repository's address, in a book of two pages."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = """{"cells": [{"cell_type": "markdown", "id": "a", "metadata": {},
"source": "# A chapter"}], "metadata": {"kernelspec": {"name": "python3",
"display_name": "Python 3"}}, "nbformat": 4, "nbformat_minor": 5}"""


@pytest.fixture
def build(tmp_path):
    """Builds with the book's own configuration, and returns the chapter's links."""

    def build(address):
        book = tmp_path / "book"
        shutil.copytree(ROOT / "book" / "_ext", book / "_ext")
        shutil.copy(ROOT / "book" / "references.bib", book)
        config = (ROOT / "_config.yml").read_text(encoding="utf-8")
        config, found = re.subn('\n  url: ".*"\n', f'\n  url: "{address}"\n', config)
        assert found == 1
        (book / "_config.yml").write_text(config, encoding="utf-8")
        toc = "format: jb-book\nroot: index\nchapters: [{file: chapter}]\n"
        (book / "_toc.yml").write_text(toc, encoding="utf-8")
        (book / "index.md").write_text("# A book\n", encoding="utf-8")
        (book / "chapter.ipynb").write_text(NOTEBOOK, encoding="utf-8")
        command = "jupyter-book build book --path-output . -W -q".split()
        command[0] = str(Path(sys.executable).with_name(command[0]))
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        page = tmp_path / "_build" / "html" / "chapter.html"
        return re.findall(r'href="(https?://[^"]*)"', page.read_text("utf-8"))

    return build


@pytest.mark.slow
def test_no_buttons_without_an_address(build):
    assert build("") == []


@pytest.mark.slow
def test_repository_and_colab_buttons(build):
    address = "https://github.com/someone/something"
    colab = "https://colab.research.google.com/github/someone/something/blob/main"
    assert sorted(build(address)) == [f"{colab}/book/chapter.ipynb", address]
