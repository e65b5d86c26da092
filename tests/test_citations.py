"""What is cited of the CalibAdv paper stands where it is said to stand: sections, equations, appendices, figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).name

SECTIONS = {"2", "3.1", "3.2", "3.3", "3.4", "4.1.1", "4.1.2", "4.1.3", "4.3", "4.4", "4.5"}
EQUATIONS = {"3-5": "3.2", "6-7": "3.3"}
FIGURES = {"2": "3.1", "3": "3.1", "6": "4.4"}
APPENDICES = set("ABCDEFGH")
# A line that names one of these and cites a place cites this one.
PLACES = {
    r"SoftPen|[Ss]oft penalty|soften_negative": "sec. 3.2",
    r"AdvReb|rebalance_answers": "sec. 3.3",
    r"PreThink": "sec. 3.4",
    r"likely correct": "sec. 3.1",
    r"collapse point|falls clearly": "sec. 4.1.1",
    r"[Hh]igh.PPL|HIGH_PPL|high_ppl": "sec. 4.3",
    r"sweep of (λ|lambda)": "sec. 4.4",
    r"silver documents are\.|proxy of": "sec. 4.5",
    r"tokens? (that )?the clip": "appendix E",
    r"one epoch|lr 5e-7": "appendix G",
    r"training mix": "appendix H",
}
OTHER = r"Cormack|Robertson|Khattab|Wang et al"  # papers whose sections are cited too
CITED = re.compile(
    r"\bsec\. (\d(?:\.\d)*)|\beq\. (\d(?:-\d)?)|\bappendi(?:x|ces) ([A-Z])(?: and ([A-Z]))?|\b[Ff]igure (\d)"
)
LOOSE = re.compile(r"\b(?:[Ss]ection \d|[Ee]quation \d|app\. [A-Z]|[Ff]ig\. \d|paper's appendix|CalibAdv appendix\))")
FILES = sorted(
    path
    for folder in ("calibadv", "serve", "workflows", "benchmarks", "docs", "tests", ".")
    for kind in ("*.py", "*.md", "*.toml")
    for path in (ROOT.glob(kind) if folder == "." else (ROOT / folder).rglob(kind))
    if path.name != HERE
)
LINES = [
    (f"{path.relative_to(ROOT)}:{number}", line)
    for path in FILES
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
    if not re.search(OTHER, line)
]
CITATIONS = [(place, line) for place, line in LINES if CITED.search(line)]


def faults(line: str) -> list[str]:
    """What is wrong with the line's citations."""
    wrong = []
    sections = set(re.findall(r"\bsec\. (\d(?:\.\d)*)", line))
    for section, equation, *appendices, figure in CITED.findall(line):
        if section and section not in SECTIONS:
            wrong.append(f"no section {section}")
        if equation and EQUATIONS.get(equation) not in sections:
            wrong.append(f"eq. {equation} without its section")
        if figure and (figure not in FIGURES or (sections and FIGURES[figure] not in sections)):
            wrong.append(f"figure {figure} is not there")
        wrong += [f"no appendix {letter}" for letter in appendices if letter and letter not in APPENDICES]
    said = re.sub(r"\b([Ww]ithout|no) \w+( and \w+)?", "", line)
    topics = [place for topic, place in PLACES.items() if re.search(topic, said)]
    if topics and not any(re.search(rf"\b{re.escape(place)}(?![\d.]\d)", line) for place in topics):
        wrong.append(f"cites another place than {' or '.join(topics)}")
    return wrong


def test_every_citation_is_of_the_place_where_it_stands() -> None:
    assert len(CITATIONS) > 30
    assert [f"{place}: {said}: {line.strip()}" for place, line in CITATIONS for said in faults(line)] == []


def test_a_place_is_written_in_one_way() -> None:
    ours = [(place, line) for place, line in LINES if re.search("CalibAdv|paper", line)]
    assert [f"{place}: {line.strip()}" for place, line in ours if LOOSE.search(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "SoftPen (sec. 3.3)",
        "AdvReb (sec. 3.3, eq. 3-5)",
        "PreThink (sec. 3.2)",
        "the collapse point (sec. 4.1)",
        "high-PPL ratio (sec. 4.4)",
        "which tokens the clip acts on (appendix D)",
        "(sec. 3.5)",
        "(appendix I)",
        "figure 6 (sec. 4.3)",
    ],
)
def test_a_wrong_citation_is_found(line: str) -> None:
    assert faults(line)


def test_papers_of_baselines_have_their_years() -> None:
    years = {"Wei": {"2025"}, "Ji": {"2026"}, "Deng": {"2025"}, "Xue": {"2025"}, "Feng": {"2025"}}
    found = [(place, *cited) for place, line in LINES for cited in re.findall(r"(\w+) et al\.,? (\d{4})", line)]
    assert {name for _, name, _ in found} >= set(years)
    assert [cited for cited in found if cited[1] in years and cited[2] not in years[cited[1]]] == []
