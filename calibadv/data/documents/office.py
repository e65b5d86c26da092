"""Office files: Word by paragraphs, PowerPoint by slides, tables by sheets and rows."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from calibadv.data.documents.blocks import Block, Unreadable, Why
from calibadv.data.documents.html import blocks_of
from calibadv.data.documents.tables import row_blocks

_MOST_UNPACKED = 2**30  # bytes; a file that claims more is a bomb, or no text
_OLE = b"\xd0\xcf\x11\xe0"  # what Office wrote before 2007, and what an encrypted file is packed into
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")  # its name in there


def docx_blocks(content: bytes) -> Iterator[Block]:
    """Paragraphs, headings by their styles, and rows of tables; `paragraph=` counts all of them."""
    import mammoth
    from bs4 import BeautifulSoup

    _check_archive(content)
    no_image = mammoth.images.img_element(lambda _: {})
    page = mammoth.convert_to_html(BytesIO(content), convert_image=no_image).value
    return blocks_of(BeautifulSoup(page, "html.parser"), lambda _, number: f"paragraph={number}")


def pptx_blocks(content: bytes) -> Iterator[Block]:
    """Of each slide its title as a heading, the texts and tables of its shapes, and the speaker's notes."""
    from pptx import Presentation

    _check_archive(content)
    for number, slide in enumerate(Presentation(BytesIO(content)).slides, start=1):
        place, title = f"slide={number}", slide.shapes.title
        if title is not None and title.text_frame.text.strip():
            yield Block(" ".join(title.text_frame.text.split()), place, 1)
        for shape in slide.shapes:
            if title is None or shape.shape_id != title.shape_id:
                yield from (Block(text, place) for text in _shape_texts(shape))
        if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None and notes.text.strip():
            yield Block(notes.text.strip(), place)


def sheet_blocks(content: bytes) -> Iterator[Block]:
    """A heading a sheet; a row as "column: value" of its sheet's first row, and as its values where that has none."""
    from python_calamine import CalamineWorkbook

    if not content.startswith(_OLE) or _ENCRYPTED in content:  # calamine reads Excel 97 too
        _check_archive(content)
    book = CalamineWorkbook.from_filelike(BytesIO(content))
    for name in book.sheet_names:
        rows = [
            [_cell(value) for value in row] for row in book.get_sheet_by_name(name).to_python(skip_empty_area=False)
        ]
        if any(map(any, rows)):
            yield Block(name, f"sheet={name}", 1)
            yield from row_blocks(enumerate(rows, start=1), f"sheet={name}&row=")


def _check_archive(content: bytes) -> None:
    """Unreadable for what is no archive, an encrypted one, and one that unpacks to more than memory should hold."""
    if content.startswith(_OLE):
        if _ENCRYPTED in content:
            raise Unreadable(Why.ENCRYPTED)
        raise Unreadable(Why.OTHER_KIND, "of Office 2003 or before: save it anew")
    try:
        size = sum(member.file_size for member in zipfile.ZipFile(BytesIO(content)).infolist())
    except zipfile.BadZipFile as error:
        raise Unreadable(Why.DAMAGED, str(error)) from error
    if size > _MOST_UNPACKED:
        raise Unreadable(Why.TOO_LARGE, f"{size:,} bytes unpacked")


def _shape_texts(shape: Any) -> Iterator[str]:
    if hasattr(shape, "shapes"):  # a group
        for inner in shape.shapes:
            yield from _shape_texts(inner)
    elif shape.has_text_frame and shape.text_frame.text.strip():
        yield shape.text_frame.text.strip()
    elif getattr(shape, "has_table", False) and shape.has_table:
        for row in shape.table.rows:
            yield " | ".join(" ".join(cell.text.split()) for cell in row.cells)


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(str(value).split())
