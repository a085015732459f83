"""The page that says how everything is made again: it leaves nothing out."""

import ast
import json
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
CELLS = json.loads((ROOT / "book/reproducibility.ipynb").read_text("utf-8"))["cells"]
(SOURCE,) = (
    source
    for cell in CELLS
    if (source := "".join(cell["source"])).startswith("SCRIPTS = {")
)
SCRIPTS = ast.literal_eval(ast.parse(SOURCE).body[0].value)


def test_every_record_has_a_row():
    records = {path.stem for path in (ROOT / "book" / "data").glob("*.json")}
    assert records and set(SCRIPTS) == records


def test_every_script_writes_its_record():
    for record, (script, _) in SCRIPTS.items():
        source = (ROOT / "benchmarks" / script).read_text("utf-8")
        assert f'write("{record}"' in source or f"write('{record}'" in source, script
