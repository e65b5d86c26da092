"""PDF: a block a paragraph of a page, as PDFium reads the page's text. A scan without a text layer is empty."""

from __future__ import annotations

import re
from collections.abc import Iterator

from calibadv.data.documents.blocks import Block, Unreadable, Why

_HYPHENATED = re.compile(
    r"(?<=\w)[\ufffe\u00ad]\n?|(?<=[a-zß-ÿ])-\n(?=[a-zß-ÿ])"
)  # PDFium marks such a break by U+FFFE
_PARAGRAPH = re.compile(r"\n\s*\n")


def pdf_blocks(content: bytes) -> Iterator[Block]:
    """The blocks of all pages. A page whose text has no blank line is one block: PDF knows no paragraphs."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        locked = error.err_code in (_PASSWORD, _SECURITY)
        raise Unreadable(Why.ENCRYPTED if locked else Why.DAMAGED, str(error)) from error
    try:
        for number in range(len(document)):
            try:
                text = document[number].get_textpage().get_text_bounded()
            except pypdfium2.PdfiumError as error:
                raise Unreadable(Why.DAMAGED, f"page {number + 1}: {error}") from error
            text = _HYPHENATED.sub("", text.replace("\r\n", "\n").replace("\0", ""))
            for paragraph in _PARAGRAPH.split(text):
                if paragraph.strip():
                    yield Block(paragraph.strip(), f"page={number + 1}")
    finally:
        document.close()


_PASSWORD, _SECURITY = 4, 5  # FPDF_ERR_PASSWORD: needs one, or the right one; FPDF_ERR_SECURITY: of an unknown kind
