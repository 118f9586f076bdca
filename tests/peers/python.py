"""JOSE libraries in Python as peers: ``python.py NAME``; see ``__init__.py`` for the tasks."""

# ruff: noqa: PLC0415  # a process loads its own library only

import json
import sys
import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

Task = dict[str, Any]


Half = tuple[Callable[[Task, bytes], Any], Callable[[Task], bytes]]
"""How a library makes messages of one kind, and how it opens them."""


class Peer(NamedTuple):
    """What a library does: bytes of a payload to a message, and back."""

    sign: Callable[[Task, bytes], Any]
    verify: Callable[[Task], bytes]
    encrypt: Callable[[Task, bytes], Any]
    decrypt: Callable[[Task], bytes]


def header(task: Task, *names: str) -> dict[str, Any]:
    names = names or ("alg", "enc", "kid")
    return {name: task[name] for name in names if name in task}


def is_general(task: Task) -> bool:
    return task["form"] == "general"


def is_compact(task: Task) -> bool:
    return isinstance(task["message"], str) if "message" in task else task["form"] == "compact"


def algorithms(task: Task) -> list[str]:
    return [task["alg"], *([task["enc"]] if "enc" in task else ())]


def text(task: Task) -> str:
    return task["message"] if is_compact(task) else json.dumps(task["message"])


def serialized(task: Task, message: Any) -> Any:
    made = message.serialize(compact=is_compact(task))
    return made if is_compact(task) else json.loads(made)


def once(read: Callable[[dict[str, Any]], Any]) -> Callable[[Task], Any]:
    """Read the key of a task, and each once: most of a task of RSA would be that."""

    @cache
    def kept(key: str) -> Any:
        return read(json.loads(key))

    return lambda task: kept(json.dumps(task["key"]))


def jwcrypto_jws() -> Half:
    from jwcrypto.jwk import JWK
    from jwcrypto.jws import JWS

    key = once(lambda members: JWK(**members))

    def sign(task: Task, payload: bytes) -> Any:
        message = JWS(payload)
        message.allowed_algs = algorithms(task)
        if not is_general(task):
            message.add_signature(key(task), protected=json.dumps(header(task)))
            return serialized(task, message)
        for _ in range(2):  # with one it is flattened
            names = json.dumps(header(task, "alg")), json.dumps(header(task, "kid"))
            message.add_signature(key(task), None, *names)
        return serialized(task, message)

    def verify(task: Task) -> bytes:
        message = JWS()
        message.allowed_algs = algorithms(task)
        message.deserialize(text(task), key(task))
        return bytes(message.payload)

    return sign, verify


def jwcrypto_jwe() -> Half:
    from jwcrypto.jwe import JWE
    from jwcrypto.jwk import JWK

    key = once(lambda members: JWK(**members))

    def encrypt(task: Task, payload: bytes) -> Any:
        if not is_general(task):
            message = JWE(payload, header(task), recipient=key(task), algs=algorithms(task))
            return serialized(task, message)
        message = JWE(payload, header(task, "enc"), algs=algorithms(task))
        for _ in range(2):  # with one it is flattened
            message.add_recipient(key(task), json.dumps(header(task, "alg", "kid")))
        return serialized(task, message)

    def decrypt(task: Task) -> bytes:
        message = JWE(algs=algorithms(task))
        message.deserialize(text(task), key(task))
        return bytes(message.payload)

    return encrypt, decrypt


def joserfc_jws() -> Half:
    from joserfc import jwk, jws

    key = once(jwk.import_key)

    def sign(task: Task, payload: bytes) -> Any:
        if is_compact(task):
            return jws.serialize_compact(header(task), payload, key(task), algorithms(task))
        if is_general(task):
            several: list[jws.HeaderDict] = [
                {"protected": header(task, "alg"), "header": header(task, "kid")}
            ]
            return dict(jws.serialize_json(several, payload, key(task), algorithms(task)))
        member: jws.HeaderDict = {"protected": header(task)}
        return dict(jws.serialize_json(member, payload, key(task), algorithms(task)))

    def verify(task: Task) -> bytes:
        if is_compact(task):
            return jws.deserialize_compact(task["message"], key(task), algorithms(task)).payload
        return jws.deserialize_json(task["message"], key(task), algorithms(task)).payload

    return sign, verify


def joserfc_jwe() -> Half:
    from joserfc import jwe, jwk

    key = once(jwk.import_key)

    def encrypt(task: Task, payload: bytes) -> Any:
        if is_compact(task):
            return jwe.encrypt_compact(header(task), payload, key(task), algorithms(task))
        if is_general(task):
            several = jwe.GeneralJSONEncryption(header(task, "enc"), payload)
            several.add_recipient(header(task, "alg", "kid"))
            return dict(jwe.encrypt_json(several, key(task), algorithms(task)))
        message = jwe.FlattenedJSONEncryption(header(task), payload)
        message.add_recipient({})
        return dict(jwe.encrypt_json(message, key(task), algorithms(task)))

    def decrypt(task: Task) -> bytes:
        if is_compact(task):
            opened = jwe.decrypt_compact(task["message"], key(task), algorithms(task)).plaintext
        else:
            opened = jwe.decrypt_json(task["message"], key(task), algorithms(task)).plaintext
        return opened or b""

    return encrypt, decrypt


COORDINATE_BYTES = {"P-256": 32, "P-384": 48, "P-521": 66}


def is_whole(protected: str) -> bool:
    """Tell whether the coordinates of ``epk``, if there is one, have their length.

    Authlib cuts leading zeros off, against RFC 7518 §6.2.1.2.
    """
    epk = json.loads(urlsafe_b64decode(protected + "==")).get("epk", {})
    wanted = COORDINATE_BYTES.get(epk.get("crv"))
    return all(len(urlsafe_b64decode(epk[name] + "==")) == wanted for name in ("x", "y") if wanted)


def authlib_jws() -> Half:
    from authlib.jose import JsonWebKey, JsonWebSignature

    key = once(JsonWebKey.import_key)

    def sign(task: Task, payload: bytes) -> Any:
        library = JsonWebSignature(algorithms(task))
        if is_compact(task):
            return library.serialize_compact(header(task), payload, key(task)).decode()
        if is_general(task):
            several = [{"protected": header(task, "alg"), "header": header(task, "kid")}]
            return library.serialize_json(several, payload, key(task))
        return library.serialize_json({"protected": header(task)}, payload, key(task))

    def verify(task: Task) -> bytes:
        library = JsonWebSignature(algorithms(task))
        if is_compact(task):
            return bytes(library.deserialize_compact(task["message"], key(task))["payload"])
        return bytes(library.deserialize_json(task["message"], key(task))["payload"])

    return sign, verify


def authlib_jwe() -> Half:
    from authlib.jose import JsonWebEncryption, JsonWebKey

    key = once(JsonWebKey.import_key)

    def encrypt(task: Task, payload: bytes) -> Any:
        library = JsonWebEncryption(algorithms(task))
        if is_general(task):
            several: dict[str, Any] = {"protected": header(task, "enc")}
            several |= {"unprotected": header(task, "alg")}
            several |= {"recipients": [{"header": header(task, "kid")}]}
            made = library.serialize_json(several, payload, key(task))
            return made if is_whole(made["protected"]) else encrypt(task, payload)
        if not is_compact(task):
            raise NotImplementedError("the general JSON serialization only")
        compact = library.serialize_compact(header(task), payload, key(task)).decode()
        return compact if is_whole(compact.partition(".")[0]) else encrypt(task, payload)

    def decrypt(task: Task) -> bytes:
        library = JsonWebEncryption(algorithms(task))
        if is_compact(task):
            return bytes(library.deserialize_compact(task["message"], key(task))["payload"])
        return bytes(library.deserialize_json(task["message"], key(task))["payload"])

    return encrypt, decrypt


def pyjwt_jws() -> Half:
    from jwt import PyJWK, PyJWS

    def sign(task: Task, payload: bytes) -> Any:
        require_compact(task)
        key = PyJWK(task["key"], algorithm=task["alg"]).key
        return PyJWS().encode(payload, key, task["alg"], {"typ": None, "kid": task["kid"]})

    def verify(task: Task) -> bytes:
        require_compact(task)
        public = {name: value for name, value in task["key"].items() if name in PUBLIC}
        key = PyJWK(public, algorithm=task["alg"])
        return bytes(PyJWS().decode(task["message"], key, algorithms(task)))

    return sign, verify


PUBLIC = ("kty", "crv", "n", "e", "x", "y")


def require_compact(task: Task) -> None:
    if not is_compact(task):
        raise NotImplementedError("no JSON serialization")


def no_jwe() -> Half:
    def refuse(*_arguments: Any) -> Any:
        raise NotImplementedError("no JWE")

    return refuse, refuse


PEERS = {
    "joserfc": (joserfc_jws, joserfc_jwe),
    "jwcrypto": (jwcrypto_jws, jwcrypto_jwe),
    "PyJWT": (pyjwt_jws, no_jwe),
    "Authlib": (authlib_jws, authlib_jwe),
}


def perform(peer: Peer, task: Task) -> dict[str, Any]:
    """Return the outcome; whatever a library raises is in its own words."""
    make, unmake = (peer.encrypt, peer.decrypt) if "enc" in task else (peer.sign, peer.verify)
    try:
        if "message" in task:
            return {"payload": urlsafe_b64encode(unmake(task)).decode().rstrip("=")}
        return {"message": make(task, urlsafe_b64decode(task["payload"] + "=="))}
    except Exception as error:  # noqa: BLE001  # of any library
        return {"lacks": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answer task by task."""
    warnings.simplefilter("ignore")
    jws, jwe = PEERS[sys.argv[1]]
    peer = Peer(*jws(), *jwe())
    for line in sys.stdin:
        print(json.dumps(perform(peer, json.loads(line))))


if __name__ == "__main__":
    main()
