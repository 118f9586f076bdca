"""What the service refuses and with which words, and what it must not refuse: two tables."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from jwcrypto.jwk import JWK

from tests.shared.api import Api, NotOffered, b64u, header, require_offered, unb64u

BAD_REQUEST = (400, "bad_request")
NOT_FOUND = (404, "not_found")
UNSUPPORTED = (422, "unsupported_algorithm")
CRYPTO_FAILURE = (422, "crypto_failure")
DECRYPTION_FAILED = (422, "decryption_failed")

GONE = object()
"""The member is left out."""


@dataclass(frozen=True)
class Kid:
    """The kid of one of ``KEYS``."""

    name: str
    member: str = "kid"


class Head(dict[str, Any]):
    """Members to change in the protected header."""


KEYS: Mapping[str, Mapping[str, str]] = {
    "A128GCM": {"kty": "oct", "alg": "A128GCM"},
    "A256GCM": {"kty": "oct", "alg": "A256GCM"},
    "HS256": {"kty": "oct", "alg": "HS256"},
    "HS512": {"kty": "oct", "alg": "HS512"},
    "RS256": {"kty": "RSA", "alg": "RS256"},
    "PS256": {"kty": "RSA", "alg": "PS256"},
    "RSA-OAEP": {"kty": "RSA", "alg": "RSA-OAEP"},
    "RSA": {"kty": "RSA"},
    "ES256": {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    "ES384": {"kty": "EC", "crv": "P-384", "alg": "ES384"},
    "EC": {"kty": "EC", "crv": "P-256"},
    "EdDSA": {"kty": "OKP", "alg": "EdDSA"},
    "destroyed": {"kty": "RSA"},
}

PATHS: Mapping[str, str] = {
    "create": "/keys",
    "import oct": "/keys",
    "import RSA": "/keys",
    "import EC": "/keys",
    "import OKP": "/keys",
    "unwrap": "/keys/unwrap",
    "encrypt": "/encrypt",
    "encrypt OAEP": "/encrypt",
    "decrypt": "/decrypt",
    "decrypt OAEP": "/decrypt",
    "sign": "/sign",
    "verify": "/verify",
    "mac": "/mac",
    "mac verify": "/mac",
}
HEADED = ("decrypt", "decrypt OAEP", "verify", "unwrap")
KEYED = ("encrypt", "encrypt OAEP", "sign", "mac", "mac verify")
BASE64URL: Mapping[str, tuple[str, ...]] = {
    "encrypt": ("data", "aad"),
    "decrypt": ("protected", "iv", "ciphertext", "tag", "aad"),
    "decrypt OAEP": ("encrypted_key",),
    "sign": ("data",),
    "verify": ("protected", "data", "signature"),
    "mac verify": ("data", "mac"),
    "unwrap": ("protected", "encrypted_key"),
    "import oct": ("k",),
    "import RSA": ("n", "e", "d", "p", "q", "dp", "dq", "qi"),
    "import EC": ("d", "x", "y"),
    "import OKP": ("d", "x"),
}
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "create": ("kty",),
    "unwrap": ("protected", "encrypted_key"),
    "encrypt": ("kid", "alg", "enc", "data"),
    "decrypt": ("protected", "iv", "ciphertext", "tag"),
    "decrypt OAEP": ("encrypted_key",),
    "sign": ("kid", "alg", "data"),
    "verify": ("protected", "data", "signature"),
    "mac": ("kid", "alg", "data"),
}
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "create": ("alg", "crv", "k", "d", "n", "x"),
    "encrypt": ("aad", "serialization", "typ", "cty"),
    "decrypt": ("encrypted_key", "aad", "kid"),
    "sign": ("serialization", "typ", "cty"),
    "verify": ("kid",),
    "mac": ("mac",),
}


@dataclass(frozen=True)
class Valid:
    """The valid requests that the tables change, and the keys that they name."""

    keys: Mapping[str, Mapping[str, Any]]
    bodies: Mapping[str, Mapping[str, Any]]

    def changed(self, endpoint: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body for ``endpoint`` with ``change`` in it."""
        return self._merged(self.bodies[endpoint], change)

    def _merged(self, valid: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
        members = {**valid, **{name: self._value(valid, name, change[name]) for name in change}}
        return {name: value for name, value in members.items() if value is not GONE}

    def _value(self, valid: Mapping[str, Any], name: str, value: Any) -> Any:
        if isinstance(value, Kid):
            return self.keys[value.name][value.member]
        if isinstance(value, Head):
            return header(**self._merged(_read(valid[name]), value))
        return value(valid[name]) if callable(value) else value


def _read(protected: str) -> dict[str, Any]:
    return dict(json.loads(unb64u(protected)))


class Keys(dict[str, Any]):
    """Those keys that the token does not lack."""

    def __missing__(self, name: str) -> Any:
        """Have the test left out."""
        raise NotOffered(name, (), "no key")


@pytest.fixture(scope="module")
def valid(local: Api, lacks: frozenset[str]) -> Valid:
    keys = Keys({name: local.create(**KEYS[name]) for name in KEYS.keys() - lacks})
    assert local.delete(keys["destroyed"]["kid"]).status == 204
    kids = {name: key["kid"] for name, key in keys.items()}
    data = b64u("data")
    encrypt = {"kid": kids["A256GCM"], "alg": "dir", "enc": "A256GCM", "data": data, "aad": data}
    encrypt_oaep = encrypt | {"kid": kids["RSA-OAEP"], "alg": "RSA-OAEP"}
    sign = {"kid": kids["ES256"], "alg": "ES256", "data": data}
    mac = {"kid": kids["HS256"], "alg": "HS256", "data": data}
    jwe_oaep = local.ok("/encrypt", encrypt_oaep)
    return Valid(
        keys=keys,
        bodies={
            "create": {"kty": "oct", "alg": "A256GCM"},
            "import oct": {"kty": "oct", "alg": "HS256", "k": b64u(bytes(range(32)))},
            "import RSA": _jwk(kty="RSA", size=2048),
            "import EC": _jwk(kty="EC", crv="P-256"),
            "import OKP": _jwk(kty="OKP", crv="Ed25519"),
            "unwrap": {name: jwe_oaep[name] for name in ("protected", "encrypted_key")},
            "encrypt": encrypt,
            "encrypt OAEP": encrypt_oaep,
            "decrypt": local.ok("/encrypt", encrypt),
            "decrypt OAEP": jwe_oaep,
            "sign": sign,
            "verify": local.ok("/sign", sign) | {"data": data},
            "mac": mac,
            "mac verify": mac | {"mac": local.ok("/mac", mac)["mac"]},
        },
    )


def _jwk(**members: Any) -> dict[str, Any]:
    return dict(JWK.generate(**members).export(as_dict=True))


Change = Mapping[str, Any]
Refusal = tuple[int, str]
Case = tuple[str, str, Change, Refusal, str | None]
"""Endpoint, what is wrong, change of its valid body, status and code, description if fixed."""

NOT_BASE64URL: Mapping[str, str] = {
    "padding": "AAA=",
    "two paddings": "AA==",
    "only padding": "====",
    "plus": "AAA+",
    "slash": "AAA/",
    "space inside": "AA AA",
    "space before": " AAAA",
    "newline at the end": "AAAA\n",
    "tab": "AA\tAA",
    "length 1": "A",
    "length 5": "AAAAA",
    "trailing bits of 2": "AB",
    "trailing bits of 3": "AAB",
    "not ASCII": "AAAé",
    "full-width letters": "\uff21\uff21\uff21\uff21",
    "NUL": "AA\0AA",
    "dot": "AA.AA",
    "percent": "AAA%3D",
}
WRONG_TYPES: Mapping[str, Any] = {
    "number": 5,
    "fraction": 1.5,
    "boolean": True,
    "array": ["AAAA"],
    "object": {"AAAA": "AAAA"},
}


def wrong_members() -> Iterator[Case]:
    for endpoint, names in REQUIRED.items():
        for name, (title, value) in itertools.product(
            names, {"missing": GONE, "null": None, **WRONG_TYPES}.items()
        ):
            yield endpoint, f"{name} {title}", {name: value}, BAD_REQUEST, None
    for endpoint, names in OPTIONAL.items():
        for name, (title, value) in itertools.product(names, WRONG_TYPES.items()):
            yield endpoint, f"{name} {title}", {name: value}, BAD_REQUEST, None
    for endpoint, names in BASE64URL.items():
        for name, (title, value) in itertools.product(names, NOT_BASE64URL.items()):
            description = f"Field '{name}' is not valid base64url"
            yield endpoint, f"{name} {title}", {name: value}, BAD_REQUEST, description


HEADER_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "decrypt": ("kid", "alg", "enc"),
    "verify": ("kid", "alg"),
    "unwrap": ("kid", "alg", "enc"),
}
NOT_HEADERS: Mapping[str, str] = {
    "empty": "",
    "not JSON": b64u("kid"),
    "an array": b64u("[]"),
    "a string": b64u('"kid"'),
    "a number": b64u("1"),
    "null": b64u("null"),
    "of two objects": b64u("{}{}"),
    "with duplicate members": b64u('{"kid":"a","kid":"a","alg":"dir","enc":"A256GCM"}'),
    "with nested duplicates": b64u('{"kid":"a","alg":"dir","enc":"A256GCM","x":{"y":1,"y":1}}'),
    "with a lone surrogate": b64u(r'{"kid":"\ud800","alg":"dir","enc":"A256GCM"}'),
    "with NaN": b64u('{"kid":"a","alg":"dir","enc":"A256GCM","x":NaN}'),
    "with a byte order mark": b64u('\ufeff{"kid":"a","alg":"dir","enc":"A256GCM"}'),
    "in UTF-16": b64u('{"kid":"a","alg":"dir","enc":"A256GCM"}'.encode("utf-16-le")),
    "not UTF-8": b64u(b'{"kid":"\xff","alg":"dir","enc":"A256GCM"}'),
    "deeply nested": b64u('{"x":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "unclosed": b64u('{"kid":'),
}
EXTENSIONS: Mapping[str, Head] = {
    "crit": Head(crit=["b64"]),
    "crit of what we know": Head(crit=["alg"]),
    "empty crit": Head(crit=[]),
    "null crit": Head(crit=None),
    "text crit": Head(crit="b64"),
    "zip": Head(zip="DEF"),
    "zip of another name": Head(zip="none"),
    "b64 false": Head(b64=False),
}


def wrong_headers() -> Iterator[Case]:
    for endpoint, names in HEADER_MEMBERS.items():
        for title, protected in NOT_HEADERS.items():
            yield endpoint, f"header {title}", {"protected": protected}, BAD_REQUEST, None
        for title, change in EXTENSIONS.items():
            yield endpoint, f"header with {title}", {"protected": change}, BAD_REQUEST, None
        for name, (title, value) in itertools.product(
            names, {"missing": GONE, "null": None, **WRONG_TYPES}.items()
        ):
            wrong = {"protected": Head({name: value})}
            yield endpoint, f"header {name} {title}", wrong, BAD_REQUEST, None


NONES = ["".join(letters) for letters in itertools.product("nN", "oO", "nN", "eE")]
NEVER = ("", "RSA1_5", "A256GCMKW ", "PBES2-HS256+A128KW", "x" * 3000, "é")
SIGNATURES = ("RS256", "PS384", "ES512", "EdDSA")
MACS = ("HS256", "HS512")
UNSUPPORTED_ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "encrypt": (*NEVER, *SIGNATURES, *MACS, "A256GCM", "Dir", "RSA-OAEP-224", "rsa-oaep"),
    "decrypt": (*NEVER, *SIGNATURES, *MACS, "A256GCM", "DIR", "RSA-OAEP-1"),
    "unwrap": (*NEVER, *SIGNATURES, *MACS, "A256GCM", "dir", "rsa-oaep"),
    "sign": (*NEVER, *MACS, "dir", "RSA-OAEP", "A256GCM", "es256", "ES512K", " ES256", "ES256\0"),
    "verify": (*NEVER, "HS1", "dir", "RSA-OAEP", "A256GCM", "es256", "ES512K"),
    "mac": (*NEVER, *SIGNATURES, "dir", "RSA-OAEP", "A256GCM", "hs256", "HS1", "HS256 "),
    "mac verify": (*SIGNATURES, "dir", "hs256"),
}
UNSUPPORTED_ENCS = ("", "A128CBC+HS256", "A256CBC-HS256", "a256gcm", "none", "dir", "HS256")


def unsupported_algorithms() -> Iterator[Case]:
    for endpoint, algs in UNSUPPORTED_ALGORITHMS.items():
        for alg in (*NONES, *algs):
            yield endpoint, f"alg {alg[:20]!r}", _named(endpoint, alg=alg), UNSUPPORTED, None
    for endpoint in ("encrypt", "decrypt", "unwrap"):
        for enc in UNSUPPORTED_ENCS:
            yield endpoint, f"enc {enc!r}", _named(endpoint, enc=enc), UNSUPPORTED, None


def _named(endpoint: str, **members: Any) -> Change:
    """Return a change of what names the key and the algorithm: the header, if there is one."""
    return {"protected": Head(members)} if endpoint in HEADED else members


ODD_KIDS: Mapping[str, Any] = {
    "empty": "",
    "text": "unknown",
    "unknown UUID": "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11",
    "nil UUID": "00000000-0000-0000-0000-000000000000",
    "NUL": "\0",
    "quote": "'",
    "double quote": '"',
    "path": "../",
    "longer path": "../../../../etc/passwd",
    "SQL": "' OR '1'='1",
    "more SQL": "'; DROP TABLE keys; --",
    "LIKE": "%",
    "JSON": '{"$ne":null}',
    "format": "{0}%s%n",
    "control characters": "\r\nX: y",
    "not ASCII": "ключ🔑",
    "3000 characters": "k" * 3000,
    "destroyed": Kid("destroyed"),
    "destroyed public": Kid("destroyed", "kid_public"),
    "upper-case": str.upper,
    "in braces": "{{{}}}".format,
    "URN": "urn:uuid:{}".format,
    "without hyphens": lambda kid: kid.replace("-", ""),
    "space before": " {}".format,
    "space after": "{} ".format,
    "newline after": "{}\n".format,
    "NUL after": "{}\0".format,
    "slash after": "{}/".format,
    "quoted": "'{}'".format,
    "cut": lambda kid: kid[:-1],
}
every_odd_kid = pytest.mark.parametrize("kid", ODD_KIDS.values(), ids=ODD_KIDS)


def unknown_keys() -> Iterator[Case]:
    for endpoint, (title, kid) in itertools.product((*KEYED, *HEADED), ODD_KIDS.items()):
        yield endpoint, f"kid {title}", _named(endpoint, kid=kid), NOT_FOUND, "Key not found"


FOREIGN_KEYS: Mapping[str, tuple[tuple[Any, Change], ...]] = {
    "encrypt": (
        (Kid("RSA-OAEP"), {}),
        (Kid("RSA"), {}),
        (Kid("RSA", "kid_public"), {}),
        (Kid("EC"), {}),
        (Kid("HS256"), {}),
        (Kid("A128GCM"), {}),
        (Kid("A256GCM"), {"enc": "A128GCM"}),
        (Kid("A256GCM"), {"enc": "A192GCM"}),
    ),
    "encrypt OAEP": (
        (Kid("A256GCM"), {}),
        (Kid("HS256"), {}),
        (Kid("ES256"), {}),
        (Kid("EdDSA"), {}),
        (Kid("RS256"), {}),
        (Kid("RS256", "kid_public"), {}),
        (Kid("RSA-OAEP"), {"alg": "RSA-OAEP-256"}),
        (Kid("RSA-OAEP", "kid_public"), {"alg": "RSA-OAEP-256"}),
    ),
    "sign": (
        (Kid("ES256", "kid_public"), {}),
        (Kid("RS256", "kid_public"), {"alg": "RS256"}),
        (Kid("EdDSA", "kid_public"), {"alg": "EdDSA"}),
        (Kid("RSA", "kid_public"), {"alg": "PS256"}),
        (Kid("RSA"), {}),
        (Kid("RS256"), {}),
        (Kid("HS256"), {}),
        (Kid("A256GCM"), {}),
        (Kid("ES384"), {}),
        (Kid("EdDSA"), {}),
        (Kid("ES256"), {"alg": "ES384"}),
        (Kid("EC"), {"alg": "ES512"}),
        (Kid("ES256"), {"alg": "EdDSA"}),
        (Kid("ES256"), {"alg": "RS256"}),
        (Kid("RS256"), {"alg": "PS256"}),
        (Kid("RS256"), {"alg": "RS384"}),
        (Kid("PS256"), {"alg": "RS256"}),
        (Kid("RSA-OAEP"), {"alg": "RS256"}),
    ),
    "mac": (
        (Kid("EC"), {}),
        (Kid("EC", "kid_public"), {}),
        (Kid("RSA"), {}),
        (Kid("EdDSA"), {}),
        (Kid("A256GCM"), {}),
        (Kid("HS512"), {}),
        (Kid("HS256"), {"alg": "HS384"}),
        (Kid("HS512"), {"alg": "HS384"}),
    ),
}
MACS_OF_OTHERS = (
    (Kid("ES256"), {"alg": "HS256"}),
    (Kid("ES256", "kid_public"), {"alg": "HS256"}),
    (Kid("RSA"), {"alg": "HS512"}),
    (Kid("EdDSA"), {"alg": "HS384"}),
    (Kid("A256GCM"), {"alg": "HS256"}),
    (Kid("HS256"), {"alg": "HS512"}),
    (Kid("HS512"), {"alg": "HS256"}),
)
SAME_FIT = {
    "decrypt": "encrypt",
    "decrypt OAEP": "encrypt OAEP",
    "unwrap": "encrypt OAEP",
    "verify": "sign",
    "mac verify": "mac",
}


def unfit_keys() -> Iterator[Case]:
    for endpoint in (*FOREIGN_KEYS, *SAME_FIT):
        for kid, members in FOREIGN_KEYS[SAME_FIT.get(endpoint, endpoint)]:
            is_half = (
                endpoint == "verify"
                and kid.member == "kid_public"
                and kid.name in (members.get("alg", "ES256"), "RSA")
            )
            if not is_half:  # a public key verifies
                title = " ".join([kid.name, kid.member, *members.values()])
                change = _named(endpoint, kid=kid, **members)
                yield endpoint, f"with {title}", change, CRYPTO_FAILURE, None


def macs_of_other_keys() -> Iterator[Case]:
    for kid, members in MACS_OF_OTHERS:
        title = " ".join([kid.name, kid.member, members["alg"]])
        change = _named("verify", kid=kid, **members)
        yield "verify", f"a MAC with {title}", change, CRYPTO_FAILURE, None


def wrong_lengths() -> Iterator[Case]:
    for endpoint in ("decrypt", "decrypt OAEP"):
        for size in (0, 1, 8, 11, 13, 16, 32):
            change = {"iv": b64u(bytes(size))}
            yield endpoint, f"iv of {size} bytes", change, BAD_REQUEST, None
        for size in (0, 4, 8, 12, 13, 15, 17, 32):
            change = {"tag": b64u(bytes(size))}
            yield endpoint, f"tag of {size} bytes", change, BAD_REQUEST, None
    yield "decrypt", "dir with encrypted_key", {"encrypted_key": "AAAA"}, BAD_REQUEST, None
    yield "decrypt OAEP", "encrypted_key empty", {"encrypted_key": ""}, BAD_REQUEST, None
    yield "unwrap", "encrypted_key empty", {"encrypted_key": ""}, BAD_REQUEST, None


def _flipped(text: str) -> str:
    octets = bytearray(unb64u(text))
    octets[-1] ^= 1
    return b64u(bytes(octets))


FAILED_DECRYPTIONS: Mapping[str, Change] = {
    "tag": {"tag": _flipped},
    "tag of zeros": {"tag": b64u(bytes(16))},
    "ciphertext": {"ciphertext": _flipped},
    "ciphertext cut": {"ciphertext": lambda text: b64u(unb64u(text)[:-1])},
    "ciphertext longer": {"ciphertext": lambda text: b64u(unb64u(text) + b"\0")},
    "ciphertext empty": {"ciphertext": ""},
    "iv": {"iv": _flipped},
    "aad": {"aad": _flipped},
    "aad missing": {"aad": GONE},
    "aad null": {"aad": None},
    "aad empty": {"aad": ""},
    "header with one more member": {"protected": Head(typ="JWE")},
    "header with spaces": {"protected": lambda text: b64u(unb64u(text) + b" ")},
}
WRONG_ENCRYPTED_KEYS: Mapping[str, Change] = {
    "of wrong padding": {"encrypted_key": _flipped},
    "of zeros": {"encrypted_key": b64u(bytes(256))},
    "of ones": {"encrypted_key": b64u(b"\xff" * 256)},
    "of 1 byte": {"encrypted_key": "AA"},
    "of 255 bytes": {"encrypted_key": b64u(bytes(255))},
    "of 257 bytes": {"encrypted_key": b64u(bytes(257))},
    "of 512 bytes": {"encrypted_key": b64u(bytes(512))},
    "of 100000 bytes": {"encrypted_key": b64u(bytes(100_000))},
    "of another key": {"protected": Head(kid=Kid("RSA"))},
}


def failed_decryptions() -> Iterator[Case]:
    for endpoint in ("decrypt", "decrypt OAEP"):
        for title, change in FAILED_DECRYPTIONS.items():
            yield endpoint, f"wrong {title}", change, DECRYPTION_FAILED, "Decryption failed"
    for endpoint in ("decrypt OAEP", "unwrap"):
        for title, change in WRONG_ENCRYPTED_KEYS.items():
            wrong = f"encrypted_key {title}"
            yield endpoint, wrong, change, DECRYPTION_FAILED, "Decryption failed"
    change = {"protected": Head(enc="A128GCM")}
    yield "decrypt OAEP", "CEK of the wrong size", change, DECRYPTION_FAILED, "Decryption failed"
    yield "unwrap", "CEK of the wrong size", change, CRYPTO_FAILURE, None


PAIRINGS: Mapping[str, tuple[str, ...]] = {
    "oct": ("RS256", "ES256", "EdDSA", "RSA-OAEP", "dir", "A128GCMKW ", "ECDH-ES", "hs256", ""),
    "RSA": ("HS256", "A256GCM", "ES256", "EdDSA", "A128KW", "RSA-OAEP-224", "dir", "none", ""),
    "EC": ("HS256", "A256GCM", "RS256", "EdDSA", "ES512K", "A128KW", "RSA-OAEP", "none"),
    "OKP": ("HS256", "ES256", "RS256", "A256GCM", "ECDH-ES+A128GCMKW", "none"),
}
SEED = b64u(bytes(32))  # of ML-DSA
NO_BITS: tuple[Any, ...] = (
    *(-1, 0, 1, 512, 1024, 2047, 2049, 4097, 8192, 16384, 10**100),
    *("2048", "", 2048.0, 2048.5, True, False, [2048], {}),
)
GENERATIONS: Mapping[str, tuple[Change, Refusal]] = {
    "kty unknown": ({"kty": "DSA"}, BAD_REQUEST),
    "kty in lower case": ({"kty": "rsa", "alg": "RS256"}, BAD_REQUEST),
    "kty in upper case": ({"kty": "OCT"}, BAD_REQUEST),
    "kty empty": ({"kty": ""}, BAD_REQUEST),
    "oct without alg": ({"alg": GONE}, BAD_REQUEST),
    "alg of 3000 characters": ({"alg": "x" * 3000}, BAD_REQUEST),
    "oct with alg null": ({"alg": None}, BAD_REQUEST),
    "crv missing": ({"kty": "EC", "alg": "ES256"}, BAD_REQUEST),
    "crv null": ({"kty": "EC", "alg": "ES256", "crv": None}, BAD_REQUEST),
    "crv missing, no alg": ({"kty": "EC", "alg": GONE}, BAD_REQUEST),
    "crv empty": ({"kty": "EC", "alg": "ES256", "crv": ""}, BAD_REQUEST),
    "crv unknown": ({"kty": "EC", "alg": GONE, "crv": "P-224"}, BAD_REQUEST),
    "crv of Bitcoin as it was": ({"kty": "EC", "alg": GONE, "crv": "P-256K"}, BAD_REQUEST),
    "ES256 on secp256k1": ({"kty": "EC", "alg": "ES256", "crv": "secp256k1"}, BAD_REQUEST),
    "ES256K on P-256": ({"kty": "EC", "alg": "ES256K", "crv": "P-256"}, BAD_REQUEST),
    "ECDH-ES on secp256k1": ({"kty": "EC", "alg": "ECDH-ES", "crv": "secp256k1"}, BAD_REQUEST),
    "crv in lower case": ({"kty": "EC", "alg": "ES256", "crv": "p-256"}, BAD_REQUEST),
    "crv of OKP for EC": ({"kty": "EC", "alg": GONE, "crv": "Ed25519"}, BAD_REQUEST),
    "ES256 on P-384": ({"kty": "EC", "alg": "ES256", "crv": "P-384"}, BAD_REQUEST),
    "ES384 on P-256": ({"kty": "EC", "alg": "ES384", "crv": "P-256"}, BAD_REQUEST),
    "ES512 on P-256": ({"kty": "EC", "alg": "ES512", "crv": "P-256"}, BAD_REQUEST),
    "OKP X448": ({"kty": "OKP", "alg": GONE, "crv": "X448"}, BAD_REQUEST),
    "Ed25519 on Ed448": ({"kty": "OKP", "alg": "Ed25519", "crv": "Ed448"}, BAD_REQUEST),
    "Ed448 on Ed25519": ({"kty": "OKP", "alg": "Ed448", "crv": "Ed25519"}, BAD_REQUEST),
    "OKP on P-256": ({"kty": "OKP", "alg": "EdDSA", "crv": "P-256"}, BAD_REQUEST),
    "OKP crv empty": ({"kty": "OKP", "alg": "EdDSA", "crv": ""}, BAD_REQUEST),
    "ECDH-ES without crv": ({"kty": "EC", "alg": "ECDH-ES"}, BAD_REQUEST),
    "ECDH-ES on P-224": ({"kty": "EC", "alg": "ECDH-ES", "crv": "P-224"}, BAD_REQUEST),
    "ECDH-ES of EC on X25519": ({"kty": "EC", "alg": "ECDH-ES", "crv": "X25519"}, BAD_REQUEST),
    "ECDH-ES of OKP on P-256": ({"kty": "OKP", "alg": "ECDH-ES", "crv": "P-256"}, BAD_REQUEST),
    "ECDH-ES on Ed25519": ({"kty": "OKP", "alg": "ECDH-ES", "crv": "Ed25519"}, BAD_REQUEST),
    "ECDH-ES on X448": ({"kty": "OKP", "alg": "ECDH-ES", "crv": "X448"}, BAD_REQUEST),
    "EdDSA on X25519": ({"kty": "OKP", "alg": "EdDSA", "crv": "X25519"}, BAD_REQUEST),
    "ES256 on X25519": ({"kty": "EC", "alg": "ES256", "crv": "X25519"}, BAD_REQUEST),
    "RSA1_5 switched off": ({"kty": "RSA", "alg": "RSA1_5"}, UNSUPPORTED),
    "OKP MLDSA44": ({"kty": "OKP", "alg": "MLDSA44"}, UNSUPPORTED),
    "AKP MLDSA44": ({"kty": "AKP", "alg": "MLDSA44"}, UNSUPPORTED),
    "AKP ML-DSA-87": ({"kty": "AKP", "alg": "ML-DSA-87"}, UNSUPPORTED),
    "AKP with a seed": ({"kty": "AKP", "alg": "ML-DSA-44", "priv": SEED}, UNSUPPORTED),
    "AKP with a short seed": ({"kty": "AKP", "alg": "ML-DSA-44", "priv": SEED[:-4]}, BAD_REQUEST),
    "AKP with pub only": ({"kty": "AKP", "alg": "ML-DSA-44", "pub": SEED}, BAD_REQUEST),
    "OKP ML-DSA-44": ({"kty": "OKP", "alg": "ML-DSA-44"}, BAD_REQUEST),
    **{
        f"bits {bits!r}": ({"kty": "RSA", "alg": "RS256", "bits": bits}, BAD_REQUEST)
        for bits in NO_BITS
    },
    "public RSA": ({"kty": "RSA", "alg": "RS256", "n": "AQAB", "e": "AQAB"}, BAD_REQUEST),
    "RSA with n only": ({"kty": "RSA", "alg": "RS256", "n": "AQAB"}, BAD_REQUEST),
    "RSA with e only": ({"kty": "RSA", "alg": "RS256", "e": "AQAB"}, BAD_REQUEST),
    "EC with x only": ({"kty": "EC", "alg": GONE, "crv": "P-256", "x": "AQAB"}, BAD_REQUEST),
}
IMPORTS: Mapping[str, Mapping[str, Change]] = {
    "import oct": {
        "k empty": {"k": ""},
        "k too short for HS256": {"k": b64u(bytes(31))},
        "k too short for HS512": {"alg": "HS512", "k": b64u(bytes(63))},
        "k longer than 4096 bytes": {"k": b64u(bytes(4097))},
        "k too long for A128GCM": {"alg": "A128GCM", "k": b64u(bytes(17))},
        "k too short for A256GCM": {"alg": "A256GCM", "k": b64u(bytes(16))},
        "alg missing": {"alg": GONE},
        "d instead of k": {"k": GONE, "d": "AQAB"},
    },
    "import EC": {
        "public only": {"d": GONE},
        "crv missing": {"crv": GONE},
        "another crv": {"crv": "P-384"},
        "alg of another crv": {"alg": "ES384"},
        "d empty": {"d": ""},
        "d zero": {"d": b64u(bytes(32))},
        "d too large": {"d": b64u(b"\xff" * 32)},
        "d too short": {"d": b64u(b"\1" * 31)},
        "d too long": {"d": b64u(b"\0" + b"\1" * 32)},
        "x of another point": {"x": _flipped},
        "y of another point": {"y": _flipped},
        "x empty": {"x": ""},
        "k instead of d": {"d": GONE, "k": "AQAB"},
    },
    "import OKP": {
        "public only": {"d": GONE},
        "d too short": {"d": b64u(b"\1" * 31)},
        "d too long": {"d": b64u(b"\1" * 33)},
        "x of another point": {"x": _flipped},
        "X25519": {"crv": "X25519"},
    },
    "import RSA": {
        "public only": dict.fromkeys(("d", "p", "q", "dp", "dq", "qi"), GONE),
        "d of another key": {"d": _flipped},
        "p of another key": {"p": _flipped},
        "dp of another key": {"dp": _flipped},
        "qi of another key": {"qi": _flipped},
        "e of 3": {"e": "Aw"},
        "e even": {"e": b64u(b"\1\0\2")},
        "n of 1024 bits": {"n": lambda n: b64u(unb64u(n)[:128])},
        "n of 16384 bits": {"n": b64u(b"\xff" * 2048)},
        "alg of another kty": {"alg": "ES256"},
    },
}


def wrong_keys() -> Iterator[Case]:
    for kty, algs in PAIRINGS.items():
        for alg in algs:
            pairing = {"kty": kty, "alg": alg, "crv": "P-256" if kty == "EC" else None}
            description = f"Algorithm '{alg}' is not compatible with key type '{kty}'."
            yield "create", f"{kty} with {alg!r}", pairing, BAD_REQUEST, description
    for title, (change, refusal) in GENERATIONS.items():
        yield "create", title, change, refusal, None
    for endpoint, changes in IMPORTS.items():
        for title, change in changes.items():
            yield endpoint, title, change, BAD_REQUEST, None


BESIDE: Mapping[str, Mapping[str, Change]] = {
    "encrypt": {"serialization compact": {"serialization": "compact"}},
    "decrypt": {"jwe": {"jwe": "a.b.c.d.e"}, "kid of another": {"kid": Kid("HS256")}},
    "verify": {
        "jws": {"jws": "a.b.c"},
        "payload": {"payload": ""},
        "kid of another": {"kid": Kid("HS256")},
        "jwk of a secret": {"jwk": {"kty": "oct", "k": "AAAA"}},
        "jwk that is null but for kty": {"jwk": {"kty": "EC", "crv": None}},
    },
}


def what_does_not_go_together() -> Iterator[Case]:
    for endpoint, changes in BESIDE.items():
        for title, change in changes.items():
            yield endpoint, f"beside {title}", change, BAD_REQUEST, None


SOURCES: tuple[Callable[[], Iterator[Case]], ...] = (
    wrong_members,
    wrong_headers,
    unsupported_algorithms,
    unknown_keys,
    unfit_keys,
    macs_of_other_keys,
    wrong_lengths,
    failed_decryptions,
    wrong_keys,
    what_does_not_go_together,
)
NAMING = ("Field '", "Fields '", "Header member '", "Algorithm '", "The key material ", "'")
"""How is named what is malformed or not supported."""

LONGEST_DESCRIPTION = 250
REFUSALS = {f"{case[0]}: {case[1]}": case for source in SOURCES for case in source()}


@pytest.mark.parametrize("endpoint", PATHS)
def test_the_unchanged_body_is_accepted(local: Api, valid: Valid, endpoint: str) -> None:
    local.ok(PATHS[endpoint], valid.changed(endpoint, {}))


@pytest.mark.parametrize(
    ("endpoint", "change", "refusal", "description"),
    [(endpoint, *rest) for endpoint, _, *rest in REFUSALS.values()],
    ids=REFUSALS,
)
def test_a_wrong_request_is_refused(  # noqa: PLR0913, PLR0917  # the columns of the table
    local: Api,
    valid: Valid,
    endpoint: str,
    change: Change,
    refusal: Refusal,
    description: str | None,
) -> None:
    body = valid.changed(endpoint, change)
    answer = local.post(PATHS[endpoint], body)
    if answer.refusal != refusal:
        require_offered(answer, body)
    assert answer.refusal == refusal
    said = answer.body["description"]
    assert description in (None, said)
    assert len(said) <= LONGEST_DESCRIPTION
    assert refusal not in (BAD_REQUEST, UNSUPPORTED) or said.startswith(NAMING), said


def test_the_table_has_no_case_twice() -> None:
    assert len(REFUSALS) == sum(1 for source in SOURCES for _ in source())


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [(endpoint, name) for endpoint, names in REQUIRED.items() for name in names],
)
def test_a_missing_member_is_named(local: Api, valid: Valid, endpoint: str, name: str) -> None:
    answer = local.post(PATHS[endpoint], valid.changed(endpoint, {name: GONE}))
    assert f"'{name}'" in answer.body["description"]


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [(endpoint, name) for endpoint, names in HEADER_MEMBERS.items() for name in names],
)
def test_a_missing_header_member_is_named(
    local: Api, valid: Valid, endpoint: str, name: str
) -> None:
    answer = local.post(PATHS[endpoint], valid.changed(endpoint, {"protected": Head({name: GONE})}))
    assert answer.refusal == BAD_REQUEST
    assert f"'{name}'" in answer.body["description"]


@pytest.mark.parametrize("name", ["n", "e", "p", "q", "dp", "dq", "qi"])
def test_a_missing_rsa_member_is_named(local: Api, valid: Valid, name: str) -> None:
    answer = local.post("/keys", valid.changed("import RSA", {name: GONE}))
    assert answer.refusal == BAD_REQUEST
    assert f"'{name}'" in answer.body["description"]


@every_odd_kid
def test_an_odd_kid_cannot_be_deleted(local: Api, valid: Valid, kid: Any) -> None:
    kid = valid.changed("sign", {"kid": kid})["kid"]
    answer = local.delete(quote(kid, safe=""))
    assert answer.refusal == NOT_FOUND
    is_path = not kid or "/" in kid  # then it is none of a key
    assert answer.body["description"] == ("No such path" if is_path else "Key not found")


def test_all_failed_decryptions_answer_the_same_bytes(local: Api, valid: Valid) -> None:
    contents = {
        local.post(PATHS[endpoint], valid.changed(endpoint, change)).content
        for endpoint, _, change, refusal, _ in failed_decryptions()
        if refusal == DECRYPTION_FAILED
    }
    assert len(contents) == 1


ALL_NULL = dict.fromkeys(("alg", "crv", "bits", "k", "d", "n", "e", "p", "q", "x", "y"))
UNKNOWN = {"use": "sig", "ext": True, "x5c": ["MII"], "key_ops": ["wrapKey"], "": None, "é": {}}
IGNORED_HEADER = Head(typ="JOSE", cty="x", jku="https://example.org", p2c=2**31 - 1, b64=True)

ACCEPTED: Mapping[str, tuple[str, Change, Mapping[str, Any]]] = {
    "create: null optional members": (
        "create",
        {**ALL_NULL, "kty": "OKP"},
        {"kty": "OKP", "crv": "Ed25519", "key_ops": ["sign", "verify"]},
    ),
    "create: RSA with everything null": ("create", {**ALL_NULL, "kty": "RSA"}, {"kty": "RSA"}),
    "create: unknown members": (
        "create",
        UNKNOWN,
        {"kty": "oct", "alg": "A256GCM", "key_ops": ["encrypt", "decrypt"]},
    ),
    "create: bits 3072": (
        "create",
        {"kty": "RSA", "alg": "PS512", "bits": 3072},
        {"alg": "PS512", "bits": 3072},
    ),
    "import: HS256 key of 64 bytes": ("import oct", {"k": b64u(bytes(64))}, {"alg": "HS256"}),
    "import: HS256 key of 4096 bytes": ("import oct", {"k": b64u(bytes(4096))}, {"alg": "HS256"}),
    "import: EC without x and y": ("import EC", {"x": GONE, "y": None}, {"kid_public": None}),
    "import: OKP without x and crv": (
        "import OKP",
        {"x": GONE, "crv": GONE},
        {"kid_public": None, "crv": "Ed25519"},
    ),
    "import: RSA is not paired with a public kid": ("import RSA", {}, {"kid_public": None}),
    "encrypt: aad null": ("encrypt", {"aad": None}, {"encrypted_key": ""}),
    "encrypt: unknown members": ("encrypt", UNKNOWN, {"encrypted_key": ""}),
    "encrypt: empty data": ("encrypt", {"data": ""}, {"ciphertext": ""}),
    "encrypt: empty aad": ("encrypt", {"aad": ""}, {"aad": ""}),
    "encrypt: public kid": ("encrypt OAEP", {"kid": Kid("RSA-OAEP", "kid_public")}, {}),
    "encrypt: RSA key without alg": (
        "encrypt OAEP",
        {"kid": Kid("RSA", "kid_public"), "alg": "RSA-OAEP-256", "enc": "A192GCM"},
        {},
    ),
    "decrypt: unknown members": ("decrypt", UNKNOWN, {"data": b64u("data")}),
    "decrypt: encrypted_key null": ("decrypt", {"encrypted_key": None}, {"data": b64u("data")}),
    "decrypt: encrypted_key missing": ("decrypt", {"encrypted_key": GONE}, {"data": b64u("data")}),
    "sign: empty data": ("sign", {"data": ""}, {}),
    "sign: unknown members": ("sign", UNKNOWN, {}),
    "sign: EC key without alg": ("sign", {"kid": Kid("EC")}, {}),
    "sign: RSA key without alg": ("sign", {"kid": Kid("RSA"), "alg": "PS384"}, {}),
    "verify: unknown members": ("verify", UNKNOWN, {"valid": True}),
    "verify: private kid": ("verify", {"protected": Head(kid=Kid("ES256"))}, {"valid": False}),
    "verify: RSA public kid": (
        "verify",
        {"protected": Head(kid=Kid("RSA", "kid_public"), alg="RS512")},
        {"valid": False},
    ),
    "verify: other data": ("verify", {"data": b64u("date")}, {"valid": False}),
    "verify: empty data": ("verify", {"data": ""}, {"valid": False}),
    "verify: more header": ("verify", {"protected": IGNORED_HEADER}, {"valid": False}),
    "verify: signature flipped": ("verify", {"signature": _flipped}, {"valid": False}),
    "verify: signature of ones": ("verify", {"signature": b64u(b"\xff" * 64)}, {"valid": False}),
    **{
        f"verify: {alg} signature of {size} bytes": (
            "verify",
            {
                "protected": Head(kid=Kid(alg, "kid_public"), alg=alg),
                "signature": b64u(bytes(size)),
            },
            {"valid": False},
        )
        for alg in ("ES256", "ES384", "EdDSA", "RS256", "PS256")
        for size in (0, 1, 63, 64, 65, 70, 96, 255, 256, 257, 512, 100_000)
    },
    "mac: null mac": ("mac", {"mac": None}, {}),
    "mac: empty data": ("mac", {"data": ""}, {}),
    "mac: unknown members": ("mac", UNKNOWN, {}),
    "mac: verified": ("mac verify", {}, {"valid": True}),
    "mac: of other data": ("mac verify", {"data": ""}, {"valid": False}),
    "mac: flipped": ("mac verify", {"mac": _flipped}, {"valid": False}),
    "mac: cut": ("mac verify", {"mac": lambda mac: b64u(unb64u(mac)[:-1])}, {"valid": False}),
    "mac: longer": ("mac verify", {"mac": lambda mac: b64u(unb64u(mac) + b"\0")}, {"valid": False}),
    **{
        f"mac: of {size} bytes": ("mac verify", {"mac": b64u(bytes(size))}, {"valid": False})
        for size in (0, 1, 16, 31, 32, 33, 64, 100_000)
    },
    "unwrap: unknown members": (
        "unwrap",
        UNKNOWN,
        {"kty": "oct", "alg": "A256GCM", "key_ops": ["encrypt", "decrypt"]},
    ),
    "unwrap: public kid and more header": (
        "unwrap",
        {"protected": Head(IGNORED_HEADER, kid=Kid("RSA-OAEP", "kid_public"))},
        {"kty": "oct", "alg": "A256GCM"},
    ),
}


@pytest.mark.parametrize(
    ("endpoint", "change", "expected"), list(ACCEPTED.values()), ids=list(ACCEPTED)
)
def test_an_unusual_request_is_accepted(
    local: Api, valid: Valid, endpoint: str, change: Change, expected: Mapping[str, Any]
) -> None:
    body = local.ok(PATHS[endpoint], valid.changed(endpoint, change))
    assert expected.items() <= body.items()


@pytest.mark.parametrize("endpoint", ["encrypt", "encrypt OAEP"])
@pytest.mark.parametrize(
    "change",
    [{"data": ""}, {"aad": ""}, {"aad": GONE}, {"aad": None}],
    ids=["empty data", "empty aad", "no aad", "null aad"],
)
def test_what_is_empty_or_absent_survives_encryption(
    local: Api, valid: Valid, endpoint: str, change: Change
) -> None:
    body = valid.changed(endpoint, change)
    jwe = local.ok("/encrypt", body)
    assert jwe.get("aad") == body.get("aad")
    assert local.ok("/decrypt", jwe)["data"] == body["data"]


def test_an_empty_aad_is_not_an_absent_one(local: Api, valid: Valid) -> None:
    with_empty = local.ok("/encrypt", valid.changed("encrypt", {"aad": ""}))
    without = local.ok("/encrypt", valid.changed("encrypt", {"aad": GONE}))
    del with_empty["aad"]
    assert local.post("/decrypt", with_empty).refusal == DECRYPTION_FAILED
    assert local.post("/decrypt", without | {"aad": ""}).refusal == DECRYPTION_FAILED


def test_empty_data_is_signed_and_authenticated(local: Api, valid: Valid) -> None:
    jws = local.ok("/sign", valid.changed("sign", {"data": ""}))
    assert local.ok("/verify", jws | {"data": ""})["valid"] is True
    body = valid.changed("mac", {"data": ""})
    assert local.ok("/mac", body | {"mac": local.ok("/mac", body)["mac"]})["valid"] is True


def test_a_key_is_decrypted_with_through_its_public_kid(local: Api, valid: Valid) -> None:
    protected = Head(kid=Kid("RSA-OAEP", "kid_public"))
    answer = local.post("/decrypt", valid.changed("decrypt OAEP", {"protected": protected}))
    # The kid is found; that the changed header no longer fits the tag is another matter.
    assert answer.refusal == DECRYPTION_FAILED


def test_an_unwrapped_key_has_no_public_kid(local: Api, valid: Valid) -> None:
    assert set(local.ok("/keys/unwrap", valid.changed("unwrap", {}))) == {
        "kid",
        "kty",
        "alg",
        "key_ops",
    }


@pytest.mark.parametrize("named", ["kid", "kid_public"])
def test_deletion_by_either_kid_deletes_both(local: Api, named: str) -> None:
    key = local.create(kty="EC", crv="P-256", alg="ES256")
    jws = local.ok("/sign", {"kid": key["kid"], "alg": "ES256", "data": ""})
    assert local.delete(key[named]).status == 204
    for kid in (key["kid"], key["kid_public"]):
        assert local.delete(kid).refusal == NOT_FOUND
        assert local.post("/sign", {"kid": kid, "alg": "ES256", "data": ""}).refusal == NOT_FOUND
    assert local.post("/verify", jws | {"data": ""}).refusal == NOT_FOUND


def test_deletion_answers_no_content(local: Api) -> None:
    answer = local.delete(local.create(kty="oct", alg="HS256")["kid"])
    assert (answer.status, answer.content) == (204, b"")
