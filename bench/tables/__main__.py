"""Write bench/README.md."""

from bench.tables.page import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
