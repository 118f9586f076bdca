"""One request and its answer for each thing that can be asked: made once, on a real token.

python -m scripts.openapi.examples makes them anew: every kid and signature changes.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import requests

from app.schemas.messages import JWE_PARTS
from scripts.openapi.operations import OPERATIONS
from scripts.throwaway import service

Exchange = dict[str, Any]
Call = Callable[..., Any]

_HERE: Final = Path(__file__).parent
_FILE: Final = _HERE / "examples.json"
_SHOWN_LINES: Final = 3
EXCHANGES: Final[list[Exchange]] = json.loads(_FILE.read_text("utf-8")) if _FILE.exists() else []
"""What the scenario asked, and what a service answered."""


def slug(title: str) -> str:
    """Return ``title`` as a name of a component."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def play(call: Call) -> None:
    """Do everything once: ``call`` takes an operation, a title, a body and parameters."""
    rfc = json.loads((_HERE / "rfc.json").read_text("utf-8"))
    pair = _keys(call)
    _encryption(call, rfc)
    _management(call, pair["kid"])
    _signing(call, pair, rfc)
    _macs(call, pair, rfc)
    call("capabilities_show", "The first and the last of what SoftHSM offers")
    call("jwks_jwks", "The published keys")
    call("health_live", "Live")
    call("health_ready", "Ready")
    call("health_metrics", "The first lines")


def _keys(call: Call) -> Any:
    """Create keys; return a pair that signs."""
    spec = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
    pair = call("keys_create", "Generate an EC pair that signs", spec)
    larger = {"kty": "RSA", "alg": "RSA-OAEP-256", "bits": 2048}
    old = call("keys_create", "Generate an RSA pair that decrypts", larger)
    call("keys_change", "Deactivate a key", {"state": "deactivated"}, kid=old["kid"])
    call("keys_change", "Hand a key over", {"owner": "token:colleague"}, kid=old["kid"])
    return pair


def _management(call: Call, kid: str) -> None:
    change = {"name": "invoices of 2030", "expires": "2031-01-31T12:00:00Z"}
    whom = {"kid": kid, "grantee": "token:colleague"}
    call("keys_change", "Name a key and let it expire", change, kid=kid)
    call("keys_change_tags_post", "Add two tags", {"tags": ["invoices", "tests"]}, kid=kid)
    call("keys_change_tags_delete", "Remove one", {"tags": ["tests"]}, kid=kid)
    call("keys_tags", "What is left", kid=kid)
    call("grants_grant", "Let a colleague sign", {"operations": ["sign", "read"]}, **whom)
    call("grants_grants", "Who may", kid=kid)
    call("keys_read", "A pair that signs", kid=kid)
    call("keys_public_pem", "A P-256 key", kid=kid)
    first = call("keys_page", "The first of several", limit=1)
    owner = first["keys"][0]["owner"]
    names = {"kty": "EC", "alg": "ES256", "state": "active", "tag": "jwks", "owner": owner}
    call("keys_page", "The next one that signs", after=first["after"], **names)
    call("grants_revoke", "Not any more", **whom)


def _encryption(call: Call, rfc: Mapping[str, Any]) -> None:
    key = call("keys_create", "Generate a key that encrypts", {"kty": "oct", "alg": "A256GCM"})
    body = {"alg": "dir", "enc": "A256GCM", "kid": key["kid"], "data": _DATA}
    body |= {"aad": "aW52b2ljZSA0Mg"}
    jwe = call("encryption_encrypt", "With an AES key and additional data", body)
    call("encryption_decrypt", "A flattened JWE", jwe)
    alg, enc = "ECDH-ES+A256KW", "A256CBC-HS512"
    spec = {"kty": "OKP", "crv": "X25519", "alg": alg}
    recipient = call("keys_create", "Generate an X25519 pair that agrees on keys", spec)
    body = {"alg": alg, "enc": enc, "kid": recipient["kid_public"], "data": _DATA}
    body |= {"apu": "QWxpY2U", "apv": "Qm9i"}
    body |= {"serialization": "compact", "typ": "JOSE", "cty": "text/plain"}
    call("encryption_encrypt", "To an X25519 key, compact", body)
    example = rfc["RFC 7516 A.1"]
    reader = call("keys_create", "Import the key of RFC 7516 A.1", example["jwk"])["kid"]
    body = {"jwe": example["jwe"], "kid": reader}
    call("encryption_decrypt", "The compact JWE of RFC 7516 A.1, whose header has no kid", body)
    body = dict(zip(JWE_PARTS, example["jwe"].split("."), strict=True)) | {"kid": reader}
    call("encryption_decrypt", "The same, flattened", body)
    body = {"alg": "RSA-OAEP", "enc": "A128GCM", "kid": reader, "data": _DATA}
    sent = call("encryption_encrypt", "To an RSA key", body)
    wrapped = {name: sent[name] for name in ("protected", "encrypted_key")}
    cek = call("keys_unwrap", "The key of a JWE", wrapped)
    call("keys_destroy", "It is not needed any more", kid=cek["kid"])


def _signing(call: Call, pair: Mapping[str, str], rfc: Mapping[str, Any]) -> None:
    body = {"kid": pair["kid"], "alg": "ES256", "data": _DATA}
    call("signing_sign", "Detached", body)
    jws = call("signing_sign", "Detached, with a content type", body | {"cty": "text/plain"})
    claims = {"data": "eyJzdWIiOiJhbGljZSJ9", "serialization": "compact", "typ": "JWT"}
    jwt = call("signing_sign", "A JWT", body | claims)
    call("signing_verify", "A detached JWS", jws | {"data": _DATA})
    call("signing_verify", "A flattened JWS", jws | {"payload": _DATA})
    call("signing_verify", "A compact JWS", jwt)
    call("keys_create", "Import the key of RFC 8037 A.1", rfc["RFC 8037 A.1"]["jwk"])
    example = rfc["RFC 7515 A.3"]
    signer = call("keys_create", "Import the key of RFC 7515 A.3", example["jwk"])["kid"]
    parts = {name: example[name] for name in ("protected", "payload", "signature")}
    call("signing_verify", "The JWS of RFC 7515 A.3, by kid", parts | {"kid": signer})
    detached = {**parts, "data": parts["payload"], "kid": signer}
    del detached["payload"]
    call("signing_verify", "The same, detached", detached)
    compact = ".".join(parts.values())
    call("signing_verify", "The same, compact", {"jws": compact, "kid": signer})
    public = {name: example["jwk"][name] for name in ("kty", "crv", "x", "y", "alg")}
    public |= {"use": "sig", "key_ops": ["verify"], "kid": "whatever the sender calls it"}
    call("signing_verify", "The same, by its key", {"jws": compact, "jwk": public})
    spec = {"kty": "RSA", "alg": "PS256"}
    other = call("keys_create", "Generate an RSA pair that signs", spec)
    body = {"kid": other["kid"], "alg": "PS256", "data": _DATA, "serialization": "compact"}
    jws = call("signing_sign", "With an RSA key, compact", body)
    public = call("keys_read", "An RSA pair", kid=other["kid"])["jwk"]
    call("signing_verify", "With an RSA key that comes along", jws | {"jwk": public})


def _macs(call: Call, pair: Mapping[str, str], rfc: Mapping[str, Any]) -> None:
    example = rfc["RFC 7515 A.1"]
    key = call("keys_create", "Import the key of RFC 7515 A.1", example["jwk"])
    body = {"kid": key["kid"], "alg": "HS256", "data": example["data"]}
    call("signing_mac", "Compute the MAC of RFC 7515 A.1", body)
    call("signing_mac", "Compare it", body | {"mac": example["mac"]})
    aes = call("keys_create", "Generate another AES key", {"kty": "oct", "alg": "A128GCM"})
    message = {"kid": aes["kid"], "alg": "dir", "enc": "A128GCM", "data": _DATA}
    jwe = call("encryption_encrypt", "With an AES key", message)
    body = {"kid": pair["kid"], "alg": "ES256", "data": _DATA}
    jws = call("signing_sign", "For a batch", body)
    bodies = {
        "encrypt": message,
        "decrypt": jwe,
        "sign": body | {"kid": aes["kid"]},
        "verify": jws | {"data": _DATA},
        "mac": {"kid": key["kid"], "alg": "HS256", "data": _DATA},
    }
    asked = [{"op": op, "id": f"my {op}", "body": bodies[op]} for op in bodies]
    call("batch_answer", "One of each, of which one is refused", {"requests": asked})


_DATA: Final = "SGVsbG8gdG9rZW4h"


class Recorder:
    """Asks the service at ``url``, with a bearer token if need be, and keeps what was said."""

    def __init__(self, url: str, *, bearer: str | None = None) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        self.exchanges: list[Exchange] = []

    def __call__(self, name: str, title: str, body: Any = None, **parameters: str | int) -> Any:
        """Return the body of the answer, of text the first lines; raise for a refusal."""
        operation = OPERATIONS[name]
        path = {key: parameters[key] for key in operation.parameters}
        query = {key: parameters[key] for key in parameters if key not in path}
        url = self._url + operation.path.format(**path)
        answer = requests.request(
            operation.method,
            url,
            params=query,
            json=body,
            headers=self._headers,
            timeout=60,
        )
        answer.raise_for_status()
        told = answer.json() if answer.headers.get("Content-Type", "").endswith("json") else None
        if told is None and answer.text:
            told = "".join(answer.text.splitlines(keepends=True)[:_SHOWN_LINES])
        if name == "capabilities_show":
            told = _shortened(told)
        parts = {"request": body, "status": answer.status_code, "response": told}
        asked = {"operation": name, "title": title, "path": path, "query": query}
        self.exchanges.append(asked | parts)
        return told


def _shortened(told: Any) -> Any:
    """Return ``told`` with the first and last member only of what has one for each algorithm."""
    if not isinstance(told, dict):
        return told
    is_map = all(isinstance(one, dict) for one in told.values())
    names = dict.fromkeys((next(iter(told)), next(reversed(told)))) if is_map and told else told
    return {name: _shortened(told[name]) for name in names}


def main() -> None:
    """Write them."""
    with service(workers=1) as running:
        recorder = Recorder(running.url)
        play(recorder)
    text = json.dumps(recorder.exchanges, indent=2, ensure_ascii=False)
    _FILE.write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
