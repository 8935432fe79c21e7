"""bench/README.md is what bench/tables makes of bench/results, and its numbers are rounded to the honest side."""

import pytest

from bench.tables import page
from bench.tables.markdown import digits, limits, share, table, wrapped

pytestmark = pytest.mark.thorough


def test_the_page_is_that_of_the_results():
    made = page.page()
    assert page.PAGE.read_text(encoding="utf-8") == made, "run python -m bench.tables"


def test_every_file_of_results_has_a_table_or_a_picture_on_it():
    text = page.PAGE.read_text(encoding="utf-8")
    pictured = {"overview"}  # the README's
    missing = [
        file.name for file in page.RESULTS.iterdir() if f"results/{file.name}" not in text and file.stem not in pictured
    ]
    assert not missing


@pytest.mark.parametrize(
    ("x", "text"),
    [(0.99985, "0.9998"), (1 - 6.2e-7, "1 - 7e-7"), (1 - 9.5e-6, "1 - 1e-5"), (1.0, "1"), (0.5, "0.5000")],
)
def test_efficiencies_are_rounded_down(x, text):
    assert share(x) == text
    assert eval(text) <= x


@pytest.mark.parametrize(
    ("x", "text"), [(0, "0"), (0.0123, "0.012"), (3.96, "4.0"), (99.7, "100"), (242.5, "240"), (1234.5, "1,200")]
)
def test_numbers_have_two_digits(x, text):
    assert digits(x) == text


def test_limits_have_signs_where_asked_for():
    assert limits(0.1, -0.02, 0.22, sign="+") == "+0.10 [-0.02, +0.22]"


def test_a_row_with_another_number_of_cells_is_refused():
    assert table(["a", "b"], [[1, 2]]).splitlines() == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]
    with pytest.raises(ValueError, match="cells"):
        table(["a", "b"], [[1]])


def test_prose_is_wrapped_and_tables_are_not():
    long = "word " * 60
    assert max(map(len, wrapped(long).splitlines())) <= 120
    assert wrapped("| " + long) == "| " + long
