"""The responses to what can go wrong, each by its status and the codes that it may have."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from werkzeug.exceptions import MethodNotAllowed, NotFound

from app.http import answers
from app.http.endpoint import JSON
from app.http.failures import Failures
from scripts.openapi.examples import slug
from scripts.openapi.types import reference

Members = dict[str, Any]

_ROUTING: Final[Failures] = (NotFound(), MethodNotAllowed())
"""Of what is no operation at all."""

_HEADERS_OF: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def statuses() -> Mapping[str, int]:
    """Return the one status of each code."""
    ours = {error.code: int(status) for error, status in answers.STATUS.items()}  # type: ignore[attr-defined]  # each has one
    return ours | {code: status for status, (code, _) in answers.HTTP_ERRORS.items()}


def references(failures: Failures) -> Members:
    """Return references to the responses to ``failures``, by status."""
    return {
        str(status): {"$ref": f"#/components/responses/{_name(causes)}"}
        for status, causes in _by_status(failures).items()
    }


def responses(of: Iterable[Failures]) -> dict[str, Members]:
    """Return the responses to what can go wrong, and to what is no operation, by name."""
    found: dict[str, dict[str, answers.Answer]] = {}
    for failures in (_ROUTING, *of):
        for causes in _by_status(failures).values():
            examples = found.setdefault(_name(causes), {})
            examples.update({cause.body["description"]: cause for cause in causes})
    return {name: _response(list(found[name].values())) for name in sorted(found)}


def header_references(names: Iterable[str]) -> Members:
    """Return the headers of a response."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _by_status(failures: Failures) -> dict[int, list[answers.Answer]]:
    found: dict[int, list[answers.Answer]] = {}
    for answer in map(answers.answer, failures):
        found.setdefault(answer.status, []).append(answer)
    return dict(sorted(found.items()))


def _codes(causes: Iterable[answers.Answer]) -> list[str]:
    return sorted({cause.body["error"] for cause in causes})


def _name(causes: list[answers.Answer]) -> str:
    """Return the name of the response to ``causes``, which have one status: that, and the codes."""
    return "-".join([str(causes[0].status), *_codes(causes)])


def _response(causes: list[answers.Answer]) -> Members:
    codes, status = _codes(causes), causes[0].status
    return {
        "description": " or ".join(f"`{code}`" for code in codes),
        "headers": header_references(("X-Request-Id", *_HEADERS_OF.get(status, ()))),
        "content": {
            JSON: {
                "schema": {**reference("Error"), "properties": {"error": {"enum": codes}}},
                "examples": {
                    slug(cause.body["description"]): {"value": cause.body} for cause in causes
                },
            }
        },
    }
