"""One request and its answer for each thing that can be asked: made once, on a real token.

python -m scripts.openapi.examples asks all of examples.json anew, in order: every kid and signature
changes. To add an example, put its operation, title and request there, and let it be asked.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from scripts.openapi.operations import OPERATIONS
from scripts.throwaway import service

Exchange = dict[str, Any]

_FILE: Final = Path(__file__).parent / "examples.json"
_SHOWN_LINES: Final = 3
_WHILE_THE_TOKEN_IS_OPENED: Final = Retry(60, status_forcelist=[503], allowed_methods=None)
EXCHANGES: Final[list[Exchange]] = json.loads(_FILE.read_text("utf-8"))
"""Requests, and what a service answered."""


def slug(title: str) -> str:
    """Return ``title`` as a name of a component."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def play(url: str, *, bearer: str | None = None) -> list[Exchange]:
    """Ask the service at ``url`` everything that ``EXCHANGES`` ask, and return what it answers.

    What a request has from an answer before it, as a kid, it has from the new answer: from the
    first that had it, for lists may have other keys in the same place.
    """
    session = requests.Session()
    session.mount(url, HTTPAdapter(max_retries=_WHILE_THE_TOKEN_IS_OPENED))
    session.headers.update({"Authorization": f"Bearer {bearer}"} if bearer else {})
    new: dict[str, str] = {}
    played = []
    for exchange in EXCHANGES:
        played.append(_ask(session, url, exchange, new))
        new = dict(_pairs(exchange.get("response"), played[-1]["response"])) | new
    return played


def _ask(
    session: requests.Session, url: str, exchange: Exchange, new: Mapping[str, str]
) -> Exchange:
    """Return ``exchange`` as it is now; raise for a refusal."""
    operation = OPERATIONS[exchange["operation"]]
    path, query = (_replaced(exchange.get(name, {}), new) for name in ("path", "query"))
    body = _replaced(exchange.get("request"), new)
    answer = session.request(
        operation.method, url + operation.path.format(**path), params=query, json=body, timeout=60
    )
    answer.raise_for_status()
    return {
        "operation": operation.name,
        "title": exchange["title"],
        "path": path,
        "query": query,
        "request": body,
        "status": answer.status_code,
        "response": _shown(answer),
    }


def _shown(answer: requests.Response) -> Any:
    """Return the body; of text the first lines, of what lists algorithms the first and the last."""
    if not answer.headers.get("Content-Type", "").endswith("json"):
        return "".join(answer.text.splitlines(keepends=True)[:_SHOWN_LINES]) or None
    body = answer.json()
    return _shortened(body) if answer.request.path_url.endswith("/capabilities") else body


def _shortened(body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    is_map = all(isinstance(one, dict) for one in body.values())
    names = dict.fromkeys((next(iter(body)), next(reversed(body)))) if is_map and body else body
    return {name: _shortened(body[name]) for name in names}


def _replaced(value: Any, new: Mapping[str, str]) -> Any:
    match value:
        case dict():
            return {name: _replaced(one, new) for name, one in value.items()}
        case list():
            return [_replaced(one, new) for one in value]
        case str():
            return new.get(value, value)
        case _:
            return value


def _pairs(old: Any, new: Any) -> Iterator[tuple[str, str]]:
    """Give each text of an answer with the one in its place."""
    match old, new:
        case dict(), dict():
            for name in old.keys() & new.keys():
                yield from _pairs(old[name], new[name])
        case list(), list():
            for one, other in zip(old, new, strict=False):
                yield from _pairs(one, other)
        case str(), str():
            yield old, new


def main() -> None:
    """Write them."""
    with service(workers=1, has_kek=True) as running:
        played = play(running.url)
    _FILE.write_text(f"{json.dumps(played, indent=2, ensure_ascii=False)}\n", "utf-8")


if __name__ == "__main__":
    main()
