"""What one search call may ask for: query length, number of queries, top-k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Upper bounds of one search call; every `check_*` raises `ValueError` naming the value and the bound.

    The HTTP edge refuses what is over a bound. `SearchPipeline` cuts an over-long query with `cut` instead: a policy
    under training writes such queries, and they are bad queries rather than broken calls.
    """

    max_query_chars: int = 2048
    max_queries: int = 1024  # of one call; Search-R1 sends a whole rollout batch at once
    max_top_k: int = 100

    def check_queries(self, queries: Sequence[str]) -> None:
        """Refuse too many queries, or one that is too long."""
        self.check_count(len(queries))
        for position, query in enumerate(queries):
            if len(query) > self.max_query_chars:
                raise ValueError(
                    f"query {position} has {len(query)} characters; the limit is {self.max_query_chars}: shorten it"
                )

    def check_count(self, count: int) -> None:
        """Refuse more than `max_queries` queries in one call."""
        if count > self.max_queries:
            raise ValueError(f"{count} queries in one call; the limit is {self.max_queries}: send several calls")

    def check_top_k(self, top_k_retrieve: int, top_k: int) -> None:
        """Refuse unless 1 <= top_k <= top_k_retrieve <= max_top_k."""
        if top_k_retrieve > self.max_top_k:
            raise ValueError(f"top_k_retrieve = {top_k_retrieve}; the limit is {self.max_top_k}: ask for fewer")
        if not 1 <= top_k <= top_k_retrieve:
            raise ValueError(
                f"top_k = {top_k}; expected at least 1 and at most top_k_retrieve = {top_k_retrieve}: "
                "raise top_k_retrieve or lower top_k"
            )

    def cut(self, query: str) -> str:
        """The query with white space collapsed and lone surrogates replaced, at most `max_query_chars` characters."""
        # Slice twice: the first bounds the work on a megabyte of text, the second counts what is left of it.
        head = query[: 4 * self.max_query_chars].encode("utf-8", "replace").decode("utf-8")
        return " ".join(head.split())[: self.max_query_chars].rstrip()
