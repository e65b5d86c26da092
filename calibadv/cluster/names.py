"""Names of actors and apps that Ray takes, made of names that people take."""

from __future__ import annotations

import hashlib
import re
import socket
import unicodedata
from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,79}")
_MARKED = re.compile(r".*-[0-9a-f]{12}")


def ray_name(name: str) -> str:
    """`name` itself where it is short and plain; else what is plain in it and its digest, so that no two are alike.

    Serve cannot create a replica of an app whose name is not ASCII, and waits for it without end (Ray 2.60).
    """
    if _PLAIN.fullmatch(name) and not _MARKED.fullmatch(name):
        return name
    return _marked(name, name)


def app_name(kind: str, *folders: Path) -> str:
    """The name of the app that serves whoever writes these folders of this host, and of nobody else's.

    All of a cluster's drivers see an app by its name, and two may call their runs alike; a folder has one writer. It is
    the same every time, so that a run that goes on replaces the app that its killed process left.
    """
    places = "\n".join([kind, socket.gethostname(), *(str(folder.resolve()) for folder in folders)])
    return _marked(f"{kind}-{folders[0].name}", places)


def _marked(name: str, unique: str) -> str:
    """What is plain in `name`, and the digest of what no other has."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", letters).strip("-")[:40] or "run"
    return f"{slug}-{hashlib.sha256(unique.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
