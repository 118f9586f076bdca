"""One key, certified for its own request, signs what several protocols ask; others verify it."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jwcrypto.jwk
import jwcrypto.jws
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwk, jws

from tests.shared.api import Api, b64u, unb64u
from tests.shared.chains import certificate, der, x5c

Body = dict[str, Any]
PAIRS: Mapping[str, Body] = {
    "PS256": {"kty": "RSA", "alg": "PS256"},
    "ES256": {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    "Ed25519": {"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519"},
}
CLAIMS = {"sub": "alice", "iat": 1}
DATA = json.dumps(CLAIMS).encode()


class Certified(NamedTuple):
    """A key of the service, and the chain that an authority has made for its request."""

    kid: str
    alg: str
    chain: list[x509.Certificate]

    @property
    def pem(self) -> bytes:
        """The public half, as the certificate has it."""
        public = self.chain[0].public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def certified(live: Api) -> Mapping[str, Certified]:
    return {alg: _certified(live, alg) for alg in PAIRS}


def _certified(api: Api, alg: str) -> Certified:
    kid = api.create(**PAIRS[alg])["kid"]
    text = api.ok(f"/keys/{kid}/csr", {"subject": {"CN": "signer"}})["csr"]
    request = x509.load_pem_x509_csr(text.encode())
    assert request.is_signature_valid
    authority = ec.generate_private_key(ec.SECP256R1())
    chain = [
        certificate("signer", request.public_key(), "root", authority),
        certificate("root", authority.public_key(), "root", authority, is_authority=True),
    ]
    body = {"x5c": x5c(chain)}
    assert api.request("PUT", f"/keys/{kid}/certificate", json=body).status == 200
    return Certified(kid, alg, chain)


def headers_of(text: str) -> Body:
    """Return the protected header of a message, or of that part of one."""
    return dict(json.loads(unb64u(text.partition(".")[0])))


def by_pyjwt(compact: str, key: Certified) -> Body:
    """Verify by the ``jwk`` of the header, which is the key of the certificate."""
    # PyJWT has the key of RFC 9864, and not yet its name.
    alg = "EdDSA" if key.alg == "Ed25519" else key.alg
    public = jwt.PyJWK(jwt.get_unverified_header(compact)["jwk"], algorithm=alg)
    assert public.key == key.chain[0].public_key()
    library = jwt.PyJWS()
    library.register_algorithm("Ed25519", library.get_algorithm_by_name("EdDSA"))
    return dict(json.loads(library.decode(compact, public.key, algorithms=[key.alg])))


def by_joserfc(compact: str, key: Certified) -> Body:
    """Verify by the certificate in ``x5c``, which the authority has signed."""
    members = headers_of(compact)
    leaf, root = (x509.load_der_x509_certificate(base64.b64decode(one)) for one in members["x5c"])
    leaf.verify_directly_issued_by(root)
    pem = leaf.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public = jwk.import_key(pem, PAIRS[key.alg]["kty"])
    registry = jws.JWSRegistry(algorithms=[key.alg])
    registry.max_header_length = len(compact)  # a chain is longer than what it takes by default
    return dict(json.loads(jws.deserialize_compact(compact, public, registry=registry).payload))


def by_thumbprint(compact: str, key: Certified) -> Body:
    """Verify by the certificate that the header names."""
    members = headers_of(compact)
    assert members["x5t#S256"] == b64u(hashlib.sha256(der(key.chain[0])).digest())
    return _by_jwcrypto(compact, key)


def by_jwcrypto(flattened: Body, key: Certified) -> Body:
    """Verify by the ``jwk`` of the header."""
    members = headers_of(flattened["protected"])
    public = jwcrypto.jwk.JWK(**members["jwk"])
    assert public.export_to_pem() == key.pem
    return _by_jwcrypto(json.dumps(flattened), key)


def _by_jwcrypto(text: str, key: Certified) -> Body:
    message = jwcrypto.jws.JWS()
    message.allowed_algs = [key.alg]
    message.deserialize(text, jwcrypto.jwk.JWK.from_pem(key.pem))
    return dict(json.loads(message.payload))


class Use(NamedTuple):
    """What a protocol wants in the header, as what, and what a receiver does with it."""

    header: Body
    verified: Callable[[Any, Certified], Body]
    serialization: str = "compact"


USES = {
    "a DPoP proof": Use({"typ": "dpop+jwt", "jwk": True, "kid": None}, by_pyjwt),
    "an SD-JWT VC": Use({"typ": "dc+sd-jwt", "x5c": True}, by_joserfc),
    "a JAdES signature": Use({"x5t#S256": True, "iat": 1, "kid": None}, by_thumbprint),
    "an ACME request": Use(
        {"jwk": True, "kid": None, "nonce": "6S8Iq", "url": "https://acme.example.com/new-account"},
        by_jwcrypto,
        "flattened",
    ),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("alg", PAIRS)
def test_another_library_verifies_what_one_certified_key_signs(live, certified, alg, use):
    key = certified[alg]
    body = {"kid": key.kid, "alg": alg, "data": b64u(DATA), "header": use.header}
    made = live.ok("/sign", body | {"serialization": use.serialization})
    message = made.get("jws") or {"payload": b64u(DATA), **made}
    told = headers_of(made.get("jws") or made["protected"])
    for name, value in use.header.items():
        assert (name in told) is (value is not None)
        assert value is None or value is True or told[name] == value
    assert use.verified(message, key) == CLAIMS
