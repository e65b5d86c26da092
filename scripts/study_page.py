"""Brings docs/study.md up to date: `scripts/study_page.py runs/pocket-study`.

The study's table.md goes between the page's two markers. A figure that it shows as images/study/GROUP-NAME.png is
copied from the study's plots/GROUP/NAME.png. The page's words are not touched: read them again.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "study.md"
START, END = "<!-- tables: start -->", "<!-- tables: end -->"
_FIGURE = re.compile(r"\(images/study/((\w+)-(\w+)\.png)\)")


def main(study: Path) -> None:
    """Rewrites the page's tables and its figures."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    _, _, tables = (study / "table.md").read_text(encoding="utf-8").partition("\n\n")  # without its title
    PAGE.write_text(f"{before}{START}\n\n{tables.replace('## ', '### ').strip()}\n\n{END}{after}", encoding="utf-8")
    images = PAGE.parent / "images" / "study"
    images.mkdir(parents=True, exist_ok=True)
    for name, group, figure in _FIGURE.findall(page):
        shutil.copy(study / "plots" / group / f"{figure}.png", images / name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
