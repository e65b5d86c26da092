"""How a search engine's JSON API is asked and read: a small mapping, data that a recipe holds (`[search.http]`).

A request is made of a template, in which `{query}`, `{k}` and `{vector}` stand for the query, the number of documents
and the query's vector by `search.encoder`; a text that is only `"{k}"` or `"{vector}"` becomes the number or the list.
In an answer, fields are named by dotted paths (`_source.title`, `hits.0`). A key is taken from the environment: `$NAME`
in a header, a parameter or the body; `$$` is a dollar sign.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError

from calibadv.nearest import did_you_mean
from calibadv.refusals import problems
from calibadv.section import Decides, Section

Json = Any
Api = TypeVar("Api", bound=Section)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET = re.compile(
    "(access|api|auth|bearer|client|private|refresh|secret|session)*"
    "(auth|authorization|cookie|credentials?|jwt|key|passphrase|passwd|password|pwd|secret|sig|signature|token)"
)
_ABOUT = {"count", "env", "field", "file", "format", "id", "length", "limit", "name", "path", "size", "type"}
_VARIABLE = re.compile(r"\$(\$|[A-Za-z_][A-Za-z0-9_]*)")
_FROM_VARIABLE = re.compile(r"([A-Za-z]+ )?\$[A-Za-z_][A-Za-z0-9_]*")
ABSENT = object()


class JsonApi(Section):
    """One API. Its shipped forms are `SHIPPED`."""

    decides: ClassVar[Decides] = Decides.RESULT

    method: Literal["GET", "POST"] = "POST"
    parameters: dict[str, str] = Field(default_factory=dict)
    """Of the address, e.g. {q = "{query}"}."""
    headers: dict[str, str] = Field(default_factory=dict)
    """E.g. {Authorization = "Bearer $MY_KEY"}."""
    body: dict[str, Any] = Field(default_factory=dict)
    """The JSON that is sent by POST, e.g. {q = "{query}", api_key = "$MY_KEY"}."""
    results: str = ""
    """Where the list of results is in an answer."""
    id: str = ""
    """Where a result's identity is; "" makes one of title and text."""
    title: str = ""
    text: str = ""
    """A list of texts is joined."""
    score: str = ""
    require: dict[str, Any] = Field(default_factory=dict)
    """What an answer says when it is whole, by path: another one is a failure, never a shorter list."""
    require_if_empty: dict[str, Any] = Field(default_factory=dict)
    """The same, for an answer without results."""

    @property
    def needs_vector(self) -> bool:
        """Whether a request holds the query's vector."""
        return "{vector}" in str((self.parameters, self.body))

    def check(self) -> None:
        """ValueError where no search could be made of it, or where it holds a key."""
        if not (self.results and self.text):
            raise ValueError("http.results and http.text must say where an answer has its list, and a result its text")
        if not {"{query}", "{vector}"} & set(re.findall(r"\{\w+\}", str((self.parameters, self.body)))):
            raise ValueError('nothing of the request is the query: put "{query}" into http.parameters or http.body')
        for place in ("headers", "parameters", "body"):
            check_no_secret(getattr(self, place), f"http.{place}")


SHIPPED: Mapping[str, Mapping[str, Any]] = {
    # GET /search?format=json, https://docs.searxng.org/dev/search_api.html: no results, and engines that were cut off,
    # say nothing of the query.
    "searxng": {
        "method": "GET",
        "parameters": {"q": "{query}", "format": "json"},
        "results": "results",
        "id": "url",
        "title": "title",
        "text": "content",
        "score": "score",
        "require_if_empty": {"unresponsive_engines": []},
    },
    # POST /INDEX/_search of OpenSearch and Elasticsearch: some shards alone are no answer.
    "opensearch": {
        "body": {"size": "{k}", "query": {"multi_match": {"query": "{query}", "fields": ["title", "text"]}}},
        "results": "hits.hits",
        "id": "_id",
        "title": "_source.title",
        "text": "_source.text",
        "score": "_score",
        "require": {"timed_out": False, "_shards.failed": 0},
    },
    # POST /collections/NAME/points/query of Qdrant.
    "qdrant": {
        "body": {"query": "{vector}", "limit": "{k}", "with_payload": True},
        "results": "result.points",
        "id": "id",
        "title": "payload.title",
        "text": "payload.text",
        "score": "score",
        "require": {"status": "ok"},
    },
    "json": {},
}


def api_of(shape: str, own: Mapping[str, Any]) -> JsonApi:
    """The API that `url_shape` names, with the user's own values in place of its. ValueError as `JsonApi.check`."""
    api = api_from(JsonApi, {**SHIPPED[shape], **own}, "http")
    api.check()
    return api


def api_from(kind: type[Api], given: Mapping[str, Any], place: str) -> Api:
    """What the table `search.<place>` says. ValueError in one line for what is none, with the nearest right key."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        problem = problems(error.errors())[0]
        if not problem.unknown:
            raise ValueError(f"{place}.{problem}") from None
        near = f"{did_you_mean(problem.where, kind.model_fields)}; there are {', '.join(kind.model_fields)}"
        raise ValueError(f"there is no {place}.{problem.where}{near}") from None


def filled(template: Json, values: Mapping[str, Json]) -> Json:
    """The template with the values in it."""
    if isinstance(template, Mapping):
        return {name: filled(inner, values) for name, inner in template.items()}
    if isinstance(template, list):
        return [filled(inner, values) for inner in template]
    if not isinstance(template, str):
        return template
    whole = re.fullmatch(r"\{(\w+)\}", template)
    if whole and whole[1] in values:
        return values[whole[1]]
    return re.sub(r"\{(query|k)\}", lambda hit: str(values[hit[1]]), template)  # once: a query may hold "{k}" itself


def check_no_secret(template: Mapping[str, Json], place: str) -> None:
    """ValueError for a text that may be a key by the name under which it stands, at whatever depth."""
    for path, name, text in _texts(template, place):
        if names_secret(name) and not _FROM_VARIABLE.fullmatch(text) and "{query}" not in text:
            raise ValueError(
                f"{path} may be a secret, which a recipe must not hold: name a variable of the environment, "
                f'e.g. {name} = "$MY_KEY" or "Bearer $MY_KEY"'
            )


def names_secret(name: str) -> bool:
    """Whether what has this name may be a secret: api_key, authToken, X-Signature; not monkey, tokens, token_limit."""
    words = [word.lower() for word in _WORD.findall(name)]
    return any(map(_SECRET.fullmatch, words)) and words[-1] not in _ABOUT


def _texts(template: Json, path: str, name: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted path, the nearest name, text) of each text of a template."""
    if isinstance(template, str):
        yield path, name, template
    elif isinstance(template, Mapping):
        for own, inner in template.items():
            yield from _texts(inner, f"{path}.{own}", own)
    elif isinstance(template, list):
        for number, inner in enumerate(template):
            yield from _texts(inner, f"{path}.{number}", name)


def from_environment(template: Json, place: str) -> Json:
    """The template with the environment's variables in it. ValueError for one that is not set."""

    def variable(hit: re.Match[str]) -> str:
        if hit[1] == "$":
            return "$"
        value = os.environ.get(hit[1], "")
        if not value:
            raise ValueError(
                f"search.{place} names ${hit[1]}, but there is no such environment variable where the search engine is "
                "asked: set it there (a dollar sign itself is $$)"
            )
        return value

    if isinstance(template, Mapping):
        return {name: from_environment(inner, place) for name, inner in template.items()}
    if isinstance(template, list):
        return [from_environment(inner, place) for inner in template]
    return _VARIABLE.sub(variable, template) if isinstance(template, str) else template


def at(value: Json, path: str) -> Json:
    """What is at the dotted path; `ABSENT` where nothing is."""
    for name in path.split(".") if path else ():
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return ABSENT
    return value
