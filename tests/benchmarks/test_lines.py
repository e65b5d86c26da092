"""What `make bench` does with the lines that it is given, without measuring."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.lines import BEGIN, END, PAGE, Line, at_least, at_most, keep, load, merged, table, with_table

ROOT = Path(__file__).parents[2]


def line(what: str, benchmark: str) -> Line:
    return Line(what, "1", "≤ 2", met=True, benchmark=benchmark)


def test_a_goal_is_met_from_its_own_side() -> None:
    assert at_least("faster", 2.0, 2).met
    assert not at_least("faster", 1.99, 2).met
    assert at_most("seconds", 0.5, 0.5, " s").met
    assert at_most("seconds", 0.51, 0.5, " s", more=" (of 3)") == Line("seconds", "0.51 s (of 3)", "≤ 0.5 s", met=False)


def test_a_benchmark_replaces_its_own_lines_in_place_and_a_new_one_comes_last() -> None:
    kept = [line("a", "one"), line("b", "one"), line("c", "two")]
    assert merged(kept, [line("d", "one"), line("e", "three")]) == [
        line("d", "one"),
        line("c", "two"),
        line("e", "three"),
    ]


def test_lines_are_kept_and_shown_between_the_pages_marks(tmp_path: Path) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "kept.json"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", "utf-8")
    keep([line("a", "one")], kept, page)
    assert load(kept) == [line("a", "one")]
    assert page.read_text("utf-8") == f"before\n{BEGIN}\n{table([line('a', 'one')])}{END}\nafter\n"
    with pytest.raises(ValueError, match="put both where the table belongs"):
        with_table("a page", "a table")


def test_the_page_shows_what_was_measured_last() -> None:
    page = PAGE.read_text("utf-8")
    assert with_table(page, table(load())) == page


def test_every_benchmark_is_a_module_and_an_unknown_one_is_refused() -> None:
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in BENCHMARKS)
    with pytest.raises(ValueError, match=r"no benchmark is called \['nonsense'\]"):
        main(["nonsense"])


def test_a_benchmark_that_fails_leaves_the_others() -> None:
    written: list[list[Line]] = []

    def measure(name: str) -> list[Line]:
        if name == "credit":
            raise subprocess.CalledProcessError(3, "credit")
        return [Line(name, "1", "2", met=False)]

    assert main(["credit", "dealing"], measure, written.append) == 1
    assert [each.what for each in written[-1] if each.benchmark == "dealing"] == ["dealing"]
