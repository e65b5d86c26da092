"""Names of actors and apps that Ray takes, made of names that people take."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,79}")
_MARKED = re.compile(r".*-[0-9a-f]{12}")


def ray_name(name: str) -> str:
    """`name` itself where it is short and plain; else what is plain in it and its digest, so that no two are alike.

    Serve cannot create a replica of an app whose name is not ASCII, and waits for it without end (Ray 2.60).
    """
    if _PLAIN.fullmatch(name) and not _MARKED.fullmatch(name):
        return name
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", letters).strip("-")[:40] or "run"
    return f"{slug}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
