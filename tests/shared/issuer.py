"""An issuer of JWTs, and those that must be refused."""

import base64
import hashlib
import hmac
import http.server
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

ISSUER = "https://issuer.example"
AUDIENCE = "jose-hsm"


def _segment(members: Any) -> str:
    text = members if isinstance(members, bytes) else json.dumps(members).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


class Issuer:
    """Keys of several kinds, and tokens made with them."""

    def __init__(self) -> None:
        self.rsa = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
        self.ec = ECKey.generate_key("P-256", {"kid": "ec", "alg": "ES256"})
        self.okp = OKPKey.generate_key("Ed25519", {"kid": "okp"})
        self.encrypting = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"})
        self.stranger = RSAKey.generate_key(2048, {"kid": "rsa"})

    @property
    def jwks(self) -> str:
        """The public keys."""
        keys: list[Any] = [self.rsa, self.ec, self.okp, self.encrypting]
        return json.dumps(KeySet(keys).as_dict(private=False))

    def settings(self, jwks: Path | str) -> dict[str, str]:
        """Return the settings that trust this issuer."""
        return {
            "JOSE_HSM_AUTH": "token,jwt",
            "JOSE_HSM_JWT_ISSUER": ISSUER,
            "JOSE_HSM_JWT_AUDIENCE": AUDIENCE,
            "JOSE_HSM_JWT_JWKS": str(jwks),
            "JOSE_HSM_JWT_LIFETIME_SECONDS": "3600",
            "JOSE_HSM_AUTH_FAILURES": "100000",
        }

    def claims(self, subject: str = "alice", **changed: Any) -> dict[str, Any]:
        """Return good claims, with changes; ``None`` leaves one out."""
        now = int(time.time())
        good = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 600}
        return {name: value for name, value in (good | changed).items() if value is not None}

    def token(
        self,
        subject: str = "alice",
        *,
        key: Any = None,
        header: Mapping[str, Any] | None = None,
        **changed: Any,
    ) -> str:
        """Return a JWT, good but for what is changed."""
        members = {"alg": "RS256", "kid": "rsa"} | dict(header or {})
        payload = json.dumps(self.claims(subject, **changed)).encode()
        return self.sign(members, payload, key or self.rsa)

    def sign(self, header: Mapping[str, Any], payload: bytes, key: Any) -> str:
        """Return a compact JWS with any header."""
        given = {name: value for name, value in header.items() if value is not None}
        signing_input = f"{_segment(given)}.{_segment(payload)}"
        if isinstance(key, bytes):  # joserfc refuses such keys, as it should
            signature = hmac.new(key, signing_input.encode(), hashlib.sha256).digest()
        else:
            algorithm = jws.JWSRegistry.algorithms[str(header["alg"])]
            signature = algorithm.sign(signing_input.encode(), key)
        return f"{signing_input}.{_segment(signature)}"


Bad = Callable[[Issuer], str]


def _hmac_with_the_public_key(issuer: Issuer) -> str:
    return issuer.token(key=issuer.rsa.as_pem(private=False), header={"alg": "HS256"})


def _unsigned(issuer: Issuer) -> str:
    header = _segment({"alg": "none"})
    return f"{header}.{_segment(issuer.claims())}."


def _changed(issuer: Issuer) -> str:
    header, _, signature = issuer.token("bob").split(".")
    return f"{header}.{_segment(issuer.claims('alice'))}.{signature}"


def _now() -> int:
    return int(time.time())


def _duplicate(issuer: Issuer) -> str:
    payload = json.dumps(issuer.claims("bob")).replace('"sub"', '"sub":"alice","sub"', 1)
    return issuer.sign({"alg": "RS256", "kid": "rsa"}, payload.encode(), issuer.rsa)


def _own_key(issuer: Issuer) -> str:
    jwk = issuer.stranger.as_dict(private=False)
    return issuer.token(key=issuer.stranger, header={"jwk": jwk, "kid": None})


BAD: Mapping[str, Bad] = {
    "alg none": _unsigned,
    "HMAC with the public key": _hmac_with_the_public_key,
    "signed by a stranger": lambda issuer: issuer.token(key=issuer.stranger),
    "claims changed": _changed,
    "unknown kid": lambda issuer: issuer.token(header={"kid": "other"}),
    "key for encryption": lambda issuer: issuer.token(key=issuer.encrypting, header={"kid": "enc"}),
    "alg not allowed": lambda issuer: issuer.token(header={"alg": "RS512"}),
    "crit": lambda issuer: issuer.token(header={"crit": ["exp"], "exp": 1}),
    "b64": lambda issuer: issuer.token(header={"b64": False}),
    "a key of its own": _own_key,
    "expired": lambda issuer: issuer.token(iat=_now() - 600, exp=_now() - 61),
    "no exp": lambda issuer: issuer.token(exp=None),
    "exp as text": lambda issuer: issuer.token(exp="9999999999"),
    "not yet": lambda issuer: issuer.token(nbf=_now() + 590),  # for a while, too
    "issued tomorrow": lambda issuer: issuer.token(iat=_now() + 86400, exp=_now() + 86500),
    "another issuer": lambda issuer: issuer.token(iss="https://other.example"),
    "no issuer": lambda issuer: issuer.token(iss=None),
    "another audience": lambda issuer: issuer.token(aud="other"),
    "no audience": lambda issuer: issuer.token(aud=None),
    "no subject": lambda issuer: issuer.token(sub=None),
    "empty subject": lambda issuer: issuer.token(sub=""),
    "subject of another type": lambda issuer: issuer.token(sub=["alice"]),
    "subject with a control character": lambda issuer: issuer.token(sub="alice\n"),
    "subject with a blank at its end": lambda issuer: issuer.token(sub="alice "),
    "subject that was no UTF-8": lambda issuer: issuer.token(sub="alic\ufffd"),
    "lifetime too long": lambda issuer: issuer.token(exp=_now() + 7200),
    "lifetime without end": lambda issuer: issuer.token(iat=None, exp=10**400),
    "lifetime from the beginning of all times": lambda issuer: issuer.token(
        iat=-(10**400), exp=_now() + 60.5
    ),
    "duplicate claim": _duplicate,
    "not JSON": lambda issuer: issuer.sign({"alg": "RS256", "kid": "rsa"}, b"{", issuer.rsa),
    "five parts": lambda _: "a.b.c.d.e",
    "padded": lambda issuer: issuer.token() + "=",
    "nonsense": lambda _: "nonsense",
}


@contextmanager
def jwks_server(content: Callable[[], bytes | None]) -> Iterator[tuple[str, list[float]]]:
    """Serve what ``content`` returns, 500 for ``None``; give the URL and the times of fetches."""
    fetches: list[float] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetches.append(time.monotonic())
            body = content()
            self.send_response(200 if body is not None else 500)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks.json", fetches
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def slow_server(answer: bytes, *, pieces: int, pause_seconds: float) -> Iterator[str]:
    """Send ``answer``, head and all, in so many pieces with a pause after each; give the URL."""
    size = -(-len(answer) // pieces)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            with suppress(OSError):  # who waits no longer has gone
                for start in range(0, len(answer), size):
                    self.request.sendall(answer[start : start + size])
                    if is_over.wait(pause_seconds):
                        return

    is_over = threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
        finally:
            is_over.set()
            server.shutdown()
            thread.join()


def http_answer(content: str, *, head: str = "") -> bytes:
    """Return an answer of 200 with ``content``, and ``head`` among its header fields."""
    fields = f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(content)}\r\n\r\n"
    return fields.encode() + content.encode()
