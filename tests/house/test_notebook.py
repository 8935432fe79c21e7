"""The notebook: script and page are one text, and every cell runs."""

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from tests.support import CHECKOUT

FOLDER = CHECKOUT / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def cells(notebook):
    """(kind, text) of every cell."""
    return [(cell.cell_type, cell.source.rstrip()) for cell in notebook.cells]


def test_there_is_a_notebook():
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_and_page_are_the_same(script):
    page = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert cells(jupytext.read(script)) == cells(page)
    assert all(cell.execution_count for cell in page.cells if cell.cell_type == "code"), "the page has no outputs"
    nbformat.validate(page)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_cell_runs(script, monkeypatch):
    monkeypatch.setenv("JAXDESIGN_SHORT", "1")
    notebook = jupytext.read(script)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": FOLDER}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    text = "".join(output.get("text", "") for output in outputs)
    assert "predicted gap" in text and "two rounds" in text
