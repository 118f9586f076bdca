"""The responses to what can go wrong, each by its status and the codes that it may have."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from app.http import answers
from app.http.endpoint import JSON
from app.http.failures import Failures
from scripts.openapi.examples import slug
from scripts.openapi.types import reference

Members = dict[str, Any]

_HEADERS_OF: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def by_status(causes: Failures) -> dict[int, list[Exception]]:
    """Return the causes of each status, in order."""
    found: dict[int, list[Exception]] = {}
    for cause in causes:
        found.setdefault(answers.answer(cause).status, []).append(cause)
    return dict(sorted(found.items()))


def name_of(causes: Iterable[Exception]) -> str:
    """Return the name of the response to ``causes``, which have one status: that, and the codes."""
    told = [answers.answer(cause) for cause in causes]
    return "-".join([str(told[0].status), *sorted({answer.body["error"] for answer in told})])


def responses(of: Iterable[Failures]) -> dict[str, Members]:
    """Return the responses to what can go wrong, by name."""
    found: dict[str, dict[str, Exception]] = {}
    for failures in of:
        for causes in by_status(failures).values():
            told = found.setdefault(name_of(causes), {})
            told.update({str(cause): cause for cause in causes})
    return {name: _refusal(list(found[name].values())) for name in sorted(found)}


def _refusal(causes: list[Exception]) -> Members:
    told = [answers.answer(cause) for cause in causes]
    status = told[0].status
    codes = sorted({answer.body["error"] for answer in told})
    return {
        "description": " or ".join(f"`{code}`" for code in codes),
        "headers": header_references(("X-Request-Id", *_HEADERS_OF.get(status, ()))),
        "content": {
            JSON: {
                "schema": {**reference("Error"), "properties": {"error": {"enum": codes}}},
                "examples": {
                    slug(answer.body["description"]): {"value": answer.body} for answer in told
                },
            }
        },
    }


def header_references(names: Iterable[str]) -> Members:
    """Return the headers of a response."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
