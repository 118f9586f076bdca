"""What is measured: operations, each as a request to the service and as calls into the token."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import requests

Body = dict[str, Any]

BATCHED: Final = 100
PREFIX: Final = "/v1/crypto"


class Client:
    """The service, called once in a while."""

    def __init__(self, url: str) -> None:
        self.url = url + PREFIX
        self._http = requests.Session()

    def post(self, path: str, body: Mapping[str, Any]) -> Body:
        """Return the answer, which must be 200."""
        response = self._http.post(self.url + path, json=body, timeout=60)
        response.raise_for_status()
        answer: Body = response.json()
        return answer

    def create(self, **members: str | int) -> str:
        """Create a key; return its kid."""
        return str(self.post("/keys", members)["kid"])

    def destroy(self, kid: object) -> None:
        """Destroy a key."""
        self._http.delete(f"{self.url}/keys/{kid}", timeout=60).raise_for_status()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One operation: ``name`` is that of its row in ``token_rate``; ``body`` makes its request.

    Latencies of slow ones need longer slices, in whole ``seconds``; what ``creates`` is cleaned up.
    """

    name: str
    title: str
    path: str
    body: Callable[[Client], Body]
    seconds: int = 1
    creates: bool = False


def _data(size: int) -> str:
    return base64.urlsafe_b64encode(b"x" * size).rstrip(b"=").decode("ascii")


def _encrypt(client: Client, *, size: int) -> Body:
    kid = client.create(kty="oct", alg="A256GCM")
    return {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": _data(size)}


def _batch(client: Client, *, op: str, body: Callable[[Client], Body]) -> Body:
    return {"requests": [{"op": op, "body": body(client)}] * BATCHED}


def _decrypt(client: Client, *, size: int) -> Body:
    return client.post("/encrypt", _encrypt(client, size=size))


def _transport(client: Client, *, alg: str) -> Body:
    kid = client.create(kty="RSA", alg=alg)
    body = {"kid": kid, "alg": alg, "enc": "A256GCM", "data": _data(64)}
    return client.post("/encrypt", body)


def _mac(client: Client) -> Body:
    return {"kid": client.create(kty="oct", alg="HS256"), "alg": "HS256", "data": _data(64)}


def _sign(client: Client, **key: str | int) -> Body:
    return {"kid": client.create(**key), "alg": key["alg"], "data": _data(64)}


def _verify(client: Client, **key: str | int) -> Body:
    body = _sign(client, **key)
    return client.post("/sign", body) | {"data": body["data"]}


def _new(_client: Client, **key: str | int) -> Body:
    return dict(key)


_P256: Final[Any] = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
_RS256: Final[Any] = {"kty": "RSA", "alg": "RS256", "bits": 2048}

POINTS: Final = (
    *(
        Point(
            name=f"{verb}-{suffix}",
            title=f"dir A256GCM {verb}, {title}",
            path=f"/{verb}",
            body=partial(make, size=size),
        )
        for verb, make in (("encrypt", _encrypt), ("decrypt", _decrypt))
        for suffix, title, size in (
            ("64", "64 B", 64),
            ("4k", "4 KiB", 4096),
            ("1m", "1 MiB", 1 << 20),
        )
    ),
    *(
        Point(
            name=f"batch-{name}",
            title=f"batch of {BATCHED} {title}",
            path="/batch",
            body=partial(_batch, op=op, body=body),
            seconds=seconds,
        )
        for name, title, op, body, seconds in (
            ("encrypt-64", "dir A256GCM encrypt, 64 B", "encrypt", partial(_encrypt, size=64), 1),
            ("hs256", "HS256 MAC", "mac", _mac, 1),
            ("es256-sign", "ES256 sign", "sign", partial(_sign, **_P256), 2),
            ("rs256-2048", "RS256 sign, 2048 bits", "sign", partial(_sign, **_RS256), 4),
        )
    ),
    Point(name="hs256", title="HS256 MAC", path="/mac", body=_mac),
    Point(name="es256-sign", title="ES256 sign", path="/sign", body=partial(_sign, **_P256)),
    Point(
        name="es256-verify", title="ES256 verify", path="/verify", body=partial(_verify, **_P256)
    ),
    Point(
        name="rs256-2048",
        title="RS256 sign, 2048 bits",
        path="/sign",
        body=partial(_sign, **_RS256),
    ),
    Point(
        name="ps256-3072",
        title="PS256 sign, 3072 bits",
        path="/sign",
        body=partial(_sign, kty="RSA", alg="PS256", bits=3072),
    ),
    Point(
        name="eddsa", title="EdDSA sign", path="/sign", body=partial(_sign, kty="OKP", alg="EdDSA")
    ),
    *(
        Point(
            name=alg.lower(),
            title=f"{alg} decrypt",
            path="/decrypt",
            body=partial(_transport, alg=alg),
        )
        for alg in ("RSA-OAEP", "RSA-OAEP-256")
    ),
    Point(
        name="unwrap",
        title="RSA-OAEP unwrap",
        path="/keys/unwrap",
        body=partial(_transport, alg="RSA-OAEP"),
        creates=True,
    ),
    Point(
        name="create-aes",
        title="AES-256 creation",
        path="/keys",
        body=partial(_new, kty="oct", alg="A256GCM"),
        creates=True,
    ),
    Point(
        name="create-rsa",
        title="RSA-2048 creation",
        path="/keys",
        body=partial(_new, kty="RSA", alg="RS256"),
        seconds=4,
        creates=True,
    ),
)
