"""A folder of documents -> a corpus file, and a list of what could not be read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from calibadv.data.documents.blocks import Unreadable, Why
from calibadv.data.documents.folder import READERS, Found, read_folder
from calibadv.data.documents.splitting import Window
from calibadv.data.errors import DataError
from calibadv.files import whole_file
from calibadv.json_lines import json_line

log = logging.getLogger("workflows.prepare_data")

_SHOWN = 3  # files of a reason in the log; the list has all


def prepare_documents(folder: Path, out: Path, window: Window | None = None) -> Found:
    """Writes the passages of all documents below `folder` to the JSON-lines file `out`, a corpus as it stands.

    Files that cannot be read are counted by reason and listed in `OUT.skipped.txt`. DataError, and nothing written,
    where none gives a passage.
    """
    if out.suffix != ".jsonl":
        raise DataError(
            str(out),
            f"passages of a folder of documents cannot be written to a {out.suffix or 'folder'}",
            "a name that ends in .jsonl",
            "For a memory-mapped store, prepare the .jsonl in a second command.",
        )
    listing = out.with_name(f"{out.name}.skipped.txt")
    listing.unlink(missing_ok=True)  # of an earlier run
    found, left_out = Found(), dict[str, Unreadable]()
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as draft:
        with draft.open("w", encoding="utf-8") as file:
            for row in read_folder(folder, window or Window(), found, left_out.__setitem__):
                file.write(json_line(row.to_json()))
        if not found.passages:
            raise _nothing(folder, found)
    if left_out:
        lines = (f"{source}: {error}\n" for source, error in left_out.items())
        listing.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
        _say(left_out, listing)
    return found


def _say(left_out: Mapping[str, Unreadable], listing: Path) -> None:
    for why in Why:
        files = [source for source, error in left_out.items() if error.why is why]
        if files:
            more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
            log.warning("left out: %d %s: %s%s", len(files), why, ", ".join(files[:_SHOWN]), more)
    log.warning("all %d files that were left out are listed in %s", len(left_out), listing)


def _nothing(folder: Path, found: Found) -> DataError:
    reasons = ", ".join(f"{count} {why}" for why, count in found.left_out.items())
    return DataError(
        str(folder),
        f"of {found.files} files none gives a passage ({reasons or 'there is none'})",
        f"at least one {', '.join(sorted(READERS))} with text",
        "Name the folder that holds the documents; scans need a text layer (OCR) first.",
    )
