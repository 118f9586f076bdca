"""JWKs of ML-DSA (RFC 9964). SoftHSM 2.6.1 has none, so the keys are those of a library."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwcrypto.jwk
import jwcrypto.jws
import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pkcs11 import Attribute, KeyType

import hsm
from app import compact_json
from app.errors import BadRequest
from app.http.operations import OPERATIONS
from app.jose import encoding
from app.jwk import write_public
from app.jwk.akp import AKP
from app.keys.catalogue import Catalogue
from app.registry import Key, Origin, Publication, Registry, Residency, State, migrate
from app.rights import Principal
from hsm import KeySpec
from hsm.cryptoki.attributes import Templates
from tests.shared.api import b64u

DATA = b64u(b"message")
PUBLICATION = Publication(most=10)


@pytest.fixture(scope="module")
def key() -> mldsa.MLDSA44PrivateKey:
    return mldsa.MLDSA44PrivateKey.generate()


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    migrate(url)
    registry = Registry(url, host="host")
    yield Catalogue(registry, PUBLICATION)
    registry._database.engine.dispose()


@pytest.fixture(params=["AKP", "OKP"])
def row(request: pytest.FixtureRequest, catalogue: Catalogue, key: mldsa.MLDSA44PrivateKey) -> Key:
    """A published key of ``alg`` MLDSA44, made under either ``kty`` that the service takes."""
    row = Key(
        kid=uuid4(),
        kid_public=uuid4(),
        owner="anonymous",
        spec=KeySpec(kty=request.param, alg="MLDSA44"),
        origin=Origin.GENERATED,
        residency=Residency.TOKEN,
        state=State.ACTIVE,
        public_jwk=write_public(key.public_key()),
    )
    catalogue._registry.insert(row)
    assert catalogue._registry.tags.publish(row.kid, row.owner, PUBLICATION)
    return row


def signed(key: mldsa.MLDSA44PrivateKey, **jwk: Any) -> dict[str, Any]:
    """A request to verify with ``jwk``, whose signature is good."""
    protected = b64u(compact_json.dumps({"alg": "MLDSA44"}))
    signature = key.sign(encoding.signing_input(protected, DATA))
    return {"protected": protected, "data": DATA, "signature": b64u(signature), "jwk": jwk}


def verified(members: dict[str, Any]) -> Any:
    operation = OPERATIONS["verify"]
    nobody: Any = None  # the key comes with the request: no key of ours, no principal
    return operation.perform(nobody, nobody, operation.load(members, {}))


def test_a_published_key_has_the_registered_alg(row, catalogue, key):
    (jwk,) = catalogue.published({})
    assert jwk == {
        "kty": "AKP",
        "alg": "ML-DSA-44",
        "pub": b64u(key.public_key().public_bytes_raw()),
        "kid": str(row.kid_public),
        "use": "sig",
    }


def test_a_key_that_is_read_has_it_in_its_jwk_and_its_own_name_beside(row, catalogue):
    description = catalogue.read(Principal(row.owner), str(row.kid))
    assert (description["alg"], description["jwk"]["alg"]) == ("MLDSA44", "ML-DSA-44")


def test_a_published_key_verifies_what_it_signed(row, catalogue, key):
    (jwk,) = catalogue.published({})
    assert verified(signed(key, **jwk)) == {"valid": True}


@pytest.mark.parametrize("named", [{"alg": "ML-DSA-44"}, {"alg": "MLDSA44"}, {}, {"alg": None}])
def test_a_jwk_of_a_caller_verifies_under_both_names_and_under_none(named, key):
    jwk = {"kty": "AKP", "pub": b64u(key.public_key().public_bytes_raw())} | named
    assert verified(signed(key, **jwk)) == {"valid": True}
    forged = signed(key, **jwk) | {"data": b64u(b"massage")}
    assert verified(forged) == {"valid": False}


PRIVATE: dict[
    str, type[mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey]
] = {
    "ML-DSA-44": mldsa.MLDSA44PrivateKey,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey,
    "ML-DSA-87": mldsa.MLDSA87PrivateKey,
}


@pytest.mark.parametrize("alg", PRIVATE)
def test_each_size_has_its_name_and_verifies_under_no_other(alg):
    key = PRIVATE[alg].generate()
    written = write_public(key.public_key())
    assert written == {"kty": "AKP", "alg": alg, "pub": b64u(key.public_key().public_bytes_raw())}
    for claimed in (*PRIVATE, "MLDSA44"):
        protected = b64u(compact_json.dumps({"alg": claimed}))
        signature = key.sign(encoding.signing_input(protected, DATA))
        for jwk in (written, {"kty": "AKP", "pub": written["pub"]}):
            body = {"protected": protected, "data": DATA, "signature": b64u(signature), "jwk": jwk}
            if alg in {claimed, hsm.SIGNATURES[claimed].first_name}:
                assert verified(body) == {"valid": True}
                assert verified(body | {"data": b64u(b"massage")}) == {"valid": False}
            else:
                with pytest.raises(hsm.CryptoFailure):
                    verified(body)


def test_jwcrypto_verifies_a_jwk_of_ours_and_we_verify_its_signature():
    key = jwcrypto.jwk.JWK.generate(kty="AKP", alg="ML-DSA-44")
    message = jwcrypto.jws.JWS(b"message")
    message.add_signature(key, protected=json.dumps({"alg": "ML-DSA-44"}))
    compact = message.serialize(compact=True)
    jwk = key.export_public(as_dict=True)
    assert verified({"jws": compact, "jwk": jwk}) == {"valid": True}
    own = mldsa.MLDSA44PrivateKey.generate()
    protected = b64u(compact_json.dumps({"alg": "ML-DSA-44"}))
    signature = b64u(own.sign(encoding.signing_input(protected, DATA)))
    theirs = jwcrypto.jws.JWS()
    theirs.allowed_algs = ["ML-DSA-44"]
    public = jwcrypto.jwk.JWK(**write_public(own.public_key()))
    theirs.deserialize(f"{protected}.{DATA}.{signature}", public)
    assert theirs.payload == b"message"


@pytest.mark.parametrize("alg", ["ML-DSA-65", "ml-dsa-44", "EdDSA", "ES256", ""])
def test_a_jwk_of_another_alg_is_not_for_it(alg, key):
    jwk = {"kty": "AKP", "alg": alg, "pub": b64u(key.public_key().public_bytes_raw())}
    with pytest.raises(hsm.CryptoFailure, match="The key does not permit MLDSA44"):
        verified(signed(key, **jwk))


@pytest.mark.parametrize("size", [0, 1311, 1313, 1953])
def test_a_public_key_of_another_size_is_refused(size, key):
    with pytest.raises(BadRequest, match="Field 'pub' is not an ML-DSA public key"):
        verified(signed(key, kty="AKP", alg="ML-DSA-44", pub=b64u(bytes(size))))


def test_it_is_shown_in_pem(row, catalogue, key):
    pem = catalogue.public_pem(Principal(row.owner), str(row.kid))
    assert load_pem_public_key(pem) == key.public_key()


def test_no_other_alg_has_another_name_in_a_jwk():
    assert [name for name, row in hsm.ALGORITHMS.items() if row.jwk_alg] == ["MLDSA44"]


# --- Seeds that are imported ---

SEED = bytes(32)
THUMBPRINTS = {
    "ML-DSA-44": "T4xl70S7MT6Zeq6r9V9fPJGVn76wfnXJ21-gyo0Gu6o",
    "ML-DSA-65": "Suiu29qbfuaBaR4Ats-c6XQBePB_OpAxAwcTR_0KXVM",
    "ML-DSA-87": "tRn1JNIkgMsABVQBlXeDHxAIcclh-2IX0UdDEzPt5XU",
}
"""Those of the keys whose seed is of zeros (RFC 9964, appendix A.1)."""


def read_seed(alg: str, kty: str = "AKP", **members: bytes | None) -> Any:
    return AKP.read_private(KeySpec(kty=kty, alg=alg), {"priv": SEED, **members})


@pytest.mark.parametrize("alg", THUMBPRINTS)
def test_a_seed_is_the_key_that_rfc_9964_has(alg):
    private = read_seed(alg)
    public = write_public(private.public_key())
    assert public["alg"] == alg
    assert jwcrypto.jwk.JWK(**public).thumbprint() == THUMBPRINTS[alg]
    assert read_seed(alg, pub=private.public_key().public_bytes_raw())


@pytest.mark.parametrize("kty", ["AKP", "OKP"])
def test_the_old_name_is_of_the_same_keys(kty):
    public = read_seed("MLDSA44", kty).public_key()
    assert jwcrypto.jwk.JWK(**write_public(public)).thumbprint() == THUMBPRINTS["ML-DSA-44"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"priv": None}, "Field 'priv' is required to import a key of type 'AKP'"),
        ({"priv": bytes(31)}, "Field 'priv' must be exactly 32 bytes"),
        ({"priv": bytes(2560)}, "Field 'priv' must be exactly 32 bytes"),
        ({"pub": bytes(1311)}, "Field 'pub' must be exactly 1312 bytes"),
        ({"pub": bytes(1312)}, "Field 'pub' does not match the private key 'priv'"),
    ],
)
def test_a_seed_that_is_none_or_of_another_key_is_refused(members, words):
    with pytest.raises(BadRequest, match=words):
        read_seed("ML-DSA-44", **members)


@pytest.mark.parametrize(
    ("alg", "parameter_set"), [("ML-DSA-44", 1), ("ML-DSA-65", 2), ("ML-DSA-87", 3)]
)
def test_a_token_gets_the_seed_guarded_and_the_public_half(alg, parameter_set):
    key, spec, kid = read_seed(alg), KeySpec(kty="AKP", alg=alg), uuid4()
    kind = {Attribute.KEY_TYPE: KeyType.ML_DSA, Attribute.PARAMETER_SET: parameter_set}
    guards = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
    private = Templates().imported_private(kid, spec, key)
    wanted = kind | guards | {Attribute.SEED: SEED}
    assert {name: private[name] for name in wanted} == wanted
    assert Attribute.VALUE not in private
    public = Templates().imported_public(kid, spec, key.public_key())
    wanted = kind | {Attribute.VALUE: key.public_key().public_bytes_raw()}
    assert {name: public[name] for name in wanted} == wanted
