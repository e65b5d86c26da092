"""Each kind of file as blocks: what is a heading, what is left out, and where it stands."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.data.documents.blocks import Block, Unreadable, Why
from calibadv.data.documents.folder import file_blocks
from calibadv.data.documents.html import html_blocks
from calibadv.data.documents.office import docx_blocks, pptx_blocks, sheet_blocks
from calibadv.data.documents.pdf import pdf_blocks
from calibadv.data.documents.tables import csv_blocks
from calibadv.data.documents.text import markdown_blocks, plain_blocks
from tests.data.documents.files import docx, pdf, pptx, xlsx


def read(blocks: Iterator[Block]) -> list[tuple[str, str, int]]:
    return [(block.text, block.place, block.level) for block in blocks]


def test_markdown_keeps_its_words_and_lines() -> None:
    text = (
        "---\nowner: Ada\n---\n# The *handbook*\n\nSee [the wiki](http://x) for\nmore.\n\n"
        "Setext\n------\n- one\n- `two`\n\n"
        "| day | hours |\n|---|---|\n| Mon | 8 |\n\n```\n# no heading\n```\n<!-- hidden -->\n"
    )
    assert read(markdown_blocks(text.encode())) == [
        ("The handbook", "line=4", 1),
        ("See the wiki for\nmore.", "line=6", 0),
        ("Setext", "line=9", 2),
        ("one", "line=11", 0),
        ("two", "line=12", 0),
        ("day | hours", "line=14", 0),
        ("Mon | 8", "line=16", 0),
        ("# no heading", "line=18", 0),
    ]


def test_html_within_markdown_is_read_as_html_is() -> None:
    text = (
        "---\na: b\n---\n"
        '<h1 align="center">Leave</h1>\n\n<details>\n<summary>More</summary>\n\nThirty days.\n\n</details>\n\n'
        "<table>\n<tr><td>Oslo</td><td>30</td></tr>\n</table>\n\n<script>\nx()\n</script>\n\none<br>two <b>three</b>\n"
    )
    assert read(markdown_blocks(text.encode())) == [
        ("Leave", "line=4", 1),
        ("More", "line=7", 0),
        ("Thirty days.", "line=9", 0),
        ("Oslo | 30", "line=14", 0),
        ("one two three", "line=21", 0),
    ]


def test_plain_text_is_cut_at_blank_lines() -> None:
    assert read(plain_blocks(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n \r\nthree")) == [
        ("one\ntwo", "line=1", 0),
        ("three", "line=5", 0),
    ]
    assert read(plain_blocks("é".encode("utf-16"))) == [("é", "line=1", 0)]


def test_html_is_read_without_what_is_not_its_text() -> None:
    page = (
        "<html><head><title>t</title><style>p{}</style></head><body><nav>Home</nav>\n<h2>Leave</h2>\n"
        "<div>Ask <b>Ada</b>, then<br>wait.<p>Thirty days.</p>Always.</div><!-- no --><script>x()</script>\n"
        "<table><tr><th>Town</th><th>Days</th></tr><tr><td><p>Oslo</p></td><td>30</td></tr></table>"
        "<ul><li>one<ul><li>two</li></ul></li></ul></body></html>"
    )
    assert read(html_blocks(page.encode())) == [
        ("Leave", "line=2", 2),
        ("Ask Ada, then wait.", "line=3", 0),
        ("Thirty days.", "line=3", 0),
        ("Always.", "line=3", 0),
        ("Town | Days", "line=4", 0),
        ("Oslo | 30", "line=4", 0),
        ("one", "line=4", 0),
        ("two", "line=4", 0),
    ]


def test_a_fragment_of_html_has_whole_blocks_and_places() -> None:
    assert read(html_blocks(b"Hello <b>bold</b> world")) == [("Hello bold world", "line=1", 0)]
    assert read(html_blocks(b"alone")) == [("alone", "line=1", 0)]
    assert read(html_blocks(b"\n<p>one</p>\n<p>two\n</p> and <i>three</i>")) == [
        ("one", "line=2", 0),
        ("two", "line=3", 0),
        ("and three", "line=3", 0),
    ]


def test_html_is_decoded_as_it_says() -> None:
    page = '<html><head><meta charset="windows-1252"></head><body><p>{}</p></body></html>'
    assert read(html_blocks(page.format("Käse – gut").encode("windows-1252"))) == [("Käse – gut", "line=1", 0)]


def test_a_pdf_is_read_by_its_pages() -> None:
    assert read(pdf_blocks(pdf("Leave is thirty days.", "", "Ask Ada."))) == [
        ("Leave is thirty days.", "page=1", 0),
        ("Ask Ada.", "page=3", 0),
    ]


def test_word_has_headings_by_style_and_rows() -> None:
    assert read(docx_blocks(docx("Leave", "Thirty days.", "Oslo", "30"))) == [
        ("Leave", "paragraph=1", 1),
        ("Thirty days.", "paragraph=2", 0),
        ("Oslo | 30", "paragraph=3", 0),
    ]


def test_slides_have_their_titles_texts_and_notes() -> None:
    assert read(pptx_blocks(pptx(("Leave", "Thirty days."), ("People", "Ada")))) == [
        ("Leave", "slide=1", 1),
        ("Thirty days.", "slide=1", 0),
        ("People", "slide=2", 1),
        ("Ada", "slide=2", 0),
        ("For the speaker", "slide=2", 0),
    ]


def test_a_row_of_a_sheet_names_its_columns() -> None:
    book = xlsx(Prices=[["Town", "Days"], ["Oslo", 30], ["", ""], ["Bergen", 2.5]], Empty=[], One=[["alone"]])
    assert read(sheet_blocks(book)) == [
        ("Prices", "sheet=Prices", 1),
        ("Town: Oslo; Days: 30", "sheet=Prices&row=2", 0),
        ("Town: Bergen; Days: 2.5", "sheet=Prices&row=4", 0),
        ("One", "sheet=One", 1),
        ("alone", "sheet=One&row=1", 0),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_row_of_a_text_file_names_its_columns(delimiter: str) -> None:
    text = '\ufeffTown,Days\r\nOslo,30\r\n\r\n"Ber,\r\ngen",2.5,odd\r\n,\r\n'
    assert read(csv_blocks(text.replace(",", delimiter).encode())) == [
        ("Town: Oslo; Days: 30", "line=2", 0),
        (f"Town: Ber{delimiter.strip()} gen; Days: 2.5; odd", "line=4", 0),
    ]
    assert read(csv_blocks(b"alone\n")) == [("alone", "line=1", 0)]


OLE = b"\xd0\xcf\x11\xe0" + b"\0" * 600


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.exe", b"MZ", Why.OTHER_KIND),
        ("a.pdf", pdf("secret", encrypted=True), Why.ENCRYPTED),
        ("a.pdf", b"no pdf", Why.DAMAGED),
        ("a.pdf", b"", Why.DAMAGED),
        ("a.docx", OLE + "EncryptedPackage".encode("utf-16-le"), Why.ENCRYPTED),
        ("a.xlsx", OLE + "EncryptedPackage".encode("utf-16-le"), Why.ENCRYPTED),
        ("a.docx", OLE, Why.OTHER_KIND),
        ("a.docx", docx("A", "B")[:400], Why.DAMAGED),
        ("a.pptx", docx("A", "B"), Why.DAMAGED),
        ("a.xls", OLE, Why.DAMAGED),
        ("a.md", b"\0\1\2", Why.BINARY),
        ("a.html", b"<p>\0</p>", Why.BINARY),
        ("a.txt", "Käse".encode("latin-1"), Why.UNDECODABLE),
        ("a.csv", b'Town,Days\n"Oslo,30\nBergen,2\n', Why.DAMAGED),
    ],
)
def test_what_cannot_be_read_is_said_by_its_reason(name: str, content: bytes, why: Why, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Unreadable) as refused:
        file_blocks(path)
    assert refused.value.why is why


def test_an_archive_that_claims_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
        archive.infolist()[0].file_size = 2**31
    with pytest.raises(Unreadable) as refused:
        file_blocks(path)
    assert refused.value.why is Why.TOO_LARGE


WHOLE = {
    ".pdf": pdf("Leave is thirty days."),
    ".docx": docx("Leave", "Thirty days.", "Oslo"),
    ".pptx": pptx(("Leave", "Thirty days.")),
    ".xlsx": xlsx(One=[["Town"], ["Oslo"]]),
    ".html": b"<h1>Leave</h1><p>Thirty <b>days</b>.",
    ".md": b"# Leave\n\n| a |\n|---|\n| b |\n",
}


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8))
def test_a_file_of_broken_bytes_is_read_or_left_out(suffix: str, changes: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE[suffix])
    for at, byte in changes:
        content[at % len(content)] = byte
    with TemporaryDirectory() as folder, contextlib.suppress(Unreadable):
        (path := Path(folder) / f"a{suffix}").write_bytes(content)
        assert all(isinstance(block, Block) for block in file_blocks(path))
