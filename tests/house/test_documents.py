"""Documents point at what is there: links between them, and the table of where things live."""

import re

import pytest

from tests.support import CHECKOUT

DOCUMENTS = [
    path
    for pattern in ("*.md", "bench/*.md", ".github/*.md", "jaxdesign/*.md", "notebooks/*.py")
    for path in sorted(CHECKOUT.glob(pattern))
]
CONTRIBUTING = CHECKOUT / ".github" / "CONTRIBUTING.md"

pytestmark = pytest.mark.skipif(not CONTRIBUTING.exists(), reason="not a checkout")


def links(path):
    """Targets of Markdown links and pictures that are files here."""
    found = re.findall(r"\]\(([^()\s]+)\)", path.read_text(encoding="utf-8"))
    return [link.split("#")[0] for link in found if not link.startswith(("http", "#"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(CHECKOUT).as_posix())
def test_links_lead_to_files(path):
    missing = [link for link in links(path) if not (path.parent / link).exists()]
    assert not missing


def places():
    """(question, path, symbols) of the rows of the table 'Where does it live?'."""
    text = CONTRIBUTING.read_text(encoding="utf-8").split("## Where does it live?")[1].split("\n## ")[0]
    rows = [row.strip().strip("|").split("|") for row in text.splitlines() if row.startswith("| ") and "`" in row]
    return [(row[0].strip(), *(re.findall(r"`([^`]+)`", cell) for cell in row[1:])) for row in rows]


def test_the_table_of_places_is_read():
    assert len(places()) >= 20


@pytest.mark.parametrize(("question", "where", "names"), places() if CONTRIBUTING.exists() else [])
def test_things_live_where_the_table_says(question, where, names):
    (path,) = where
    text = (CHECKOUT / path).read_text(encoding="utf-8")
    for name in names:
        defined = rf"^\s*(def|class) {re.escape(name)}\b|^{re.escape(name)}\b.*="
        assert re.search(defined, text, re.MULTILINE), f"{question}: {name} is not defined in {path}"
