"""Print how far it is from a view to the token: links, files and closures of one warm request.

    python -m scripts.trials.trace_calls --chain

A link is a function of ``app`` or ``hsm`` that waits for the next one, the C function being the
last. Closures are the nested functions and lambdas among them.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from flask import Flask

from app.config import Config
from app.factory import create_app
from app.service import service_of
from scripts.throwaway import ROOT, make_token

_READY_SECONDS: Final = 60.0
_VIEWS: Final = "app/http/views/"
_API: Final = "/v1/crypto"
_EC_KEY: Final = {  # RFC 7515, appendix A.3.1
    "kty": "EC",
    "crv": "P-256",
    "alg": "ES256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
}


class Link(NamedTuple):
    """A function of ours in a chain."""

    path: str
    name: str

    @property
    def is_closure(self) -> bool:
        """Whether it is made anew each time: a nested function or a lambda."""
        return "<locals>" in self.name or "<lambda>" in self.name


class Chain(NamedTuple):
    """The functions from a view to one C function."""

    function: str
    links: tuple[Link, ...]

    @property
    def length(self) -> int:
        """How many functions there are, the C function included."""
        return len(self.links) + 1

    @property
    def files(self) -> int:
        """How many files they stand in."""
        return len({link.path for link in self.links})

    @property
    def closures(self) -> int:
        """How many of them are closures."""
        return sum(link.is_closure for link in self.links)


class Request(NamedTuple):
    """A request, and the C function to which its chain leads."""

    title: str
    path: str
    body: Mapping[str, str]
    function: str


def chain_of(send: Callable[[], object], function: str) -> Chain:
    """Return the longest chain to ``function`` while ``send`` sends a request in this thread."""
    found: list[Chain] = []

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and _called(frame) == function:
            found.append(Chain(function, tuple(_links(frame))))

    sys.setprofile(note)
    try:
        send()
    finally:
        sys.setprofile(None)
    return max(found, key=lambda chain: chain.length)


def requests(app: Flask) -> list[Request]:
    """Return the requests to be traced, with keys of ``app`` that have been used."""
    pair = _post(app, "/keys", {"kty": "EC", "crv": "P-256", "alg": "ES256"})
    secret = _post(app, "/keys", {"kty": "oct", "alg": "A256GCM"})
    sign = {"kid": pair["kid"], "alg": "ES256", "data": "AAAA"}
    encrypt = {"kid": secret["kid"], "alg": "dir", "enc": "A256GCM", "data": "AAAA"}
    found = [
        Request("sign", "/sign", sign, "C_Sign"),
        Request("encrypt with dir", "/encrypt", encrypt, "C_Encrypt"),
        Request("import", "/keys", _EC_KEY, "C_CreateObject"),
    ]
    for request in found:
        _post(app, request.path, request.body)
    return found


def trace(app: Flask, request: Request) -> Chain:
    """Return the chain of ``request``."""
    return chain_of(lambda: _post(app, request.path, request.body), request.function)


def _called(frame: FrameType) -> str | None:
    """Return the C function that a frame calls, if it calls one."""
    match frame.f_code.co_name, _path(frame):
        case "call", "hsm/cryptoki/session.py":
            return str(frame.f_locals["function"])
        case "__call__", "hsm/cryptoki/repeated.py":
            return str(frame.f_locals["self"].name)
        case _:
            return None


def _links(frame: FrameType | None) -> Iterator[Link]:
    """Give the functions of ours from the view to ``frame``."""
    ours: list[Link] = []
    while frame is not None:
        path = _path(frame)
        if path.startswith(("app/", "hsm/")):
            ours.append(Link(path, frame.f_code.co_qualname))
        if path.startswith(_VIEWS):
            break
        frame = frame.f_back
    yield from reversed(ours)


def _path(frame: FrameType) -> str:
    return frame.f_code.co_filename.removeprefix(f"{ROOT}/")


def _post(app: Flask, path: str, body: Mapping[str, str]) -> dict[str, str]:
    response = app.test_client().post(_API + path, json=body)
    if response.status_code != 200:  # noqa: PLR2004  # OK
        raise RuntimeError(response.get_data(as_text=True))
    return dict(response.get_json())


def _started(directory: str) -> Flask:
    """Return the service in this process, on a token of its own."""
    settings = make_token(Path(directory) / "state")
    os.environ["SOFTHSM2_CONF"] = settings["SOFTHSM2_CONF"]
    app = create_app(Config.from_env(settings))
    token, deadline = service_of(app).hsm, time.monotonic() + _READY_SECONDS
    while token.reason is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    return app


def main() -> None:
    """Trace, print, and leave: the token's library may not be torn down by the interpreter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chain", action="store_true", help="print the functions too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        app = _started(directory)
        for request in requests(app):
            chain = trace(app, request)
            print(
                f"{request.title}: {chain.length} links, {chain.files} files, "
                f"{chain.closures} closures to {chain.function}"
            )
            for link in chain.links if options.chain else ():
                print(f"    {link.path}: {link.name}")


if __name__ == "__main__":
    main()
