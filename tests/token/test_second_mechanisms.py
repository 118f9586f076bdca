"""Where a token hashes nothing, it signs a digest that is taken here: the signatures are the same.

SoftHSM does without a mechanism if its list of them, ``slots.mechanisms``, does not name it.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from pkcs11 import Attribute, Mechanism, ObjectClass, PKCS11Error

from hsm import Hsm, KeyRef, KeySpec
from hsm.cryptoki.handles import Handle, Key
from hsm.life.work import Errand
from scripts.throwaway import make_token
from tests.shared.drivers import result_of
from tests.shared.refs import new_ref
from tests.token.test_connection import _started
from tests.token.test_examination import opened

LEFT = """
    CKM_RSA_PKCS_KEY_PAIR_GEN CKM_RSA_PKCS CKM_RSA_PKCS_PSS CKM_AES_KEY_GEN CKM_AES_GCM
""".split()  # noqa: SIM905  # as in the standard, and readable
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
RSA = [f"{scheme}{bits}" for scheme in ("RS", "PS") for bits in HASHES]
DATA, OTHER = b"data", b"date"


def scheme_of(alg: str) -> padding.AsymmetricPadding:
    """The padding of ``alg`` (RFC 7518 §3.3, §3.5)."""
    hashed = HASHES[alg[2:]]
    pss = padding.PSS(padding.MGF1(hashed), hashed.digest_size)
    return pss if alg.startswith("PS") else padding.PKCS1v15()


def spki(public: Any) -> str:
    encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded.hex()


def is_valid(public: str, alg: str, signature: str) -> bool:
    key: Any = load_der_public_key(bytes.fromhex(public))
    try:
        key.verify(bytes.fromhex(signature), DATA, scheme_of(alg), HASHES[alg[2:]])
    except InvalidSignature:
        return False
    return True


def allowed(token: Hsm, key: KeyRef, object_class: ObjectClass) -> list[int]:
    """CKA_ALLOWED_MECHANISMS of that half."""
    named = {Attribute.CLASS: object_class, Attribute.ID: key.kid.bytes}

    def read(_token: Any, session: Any) -> list[int]:
        (found,) = session.find(named)
        return sorted(map(int, found[Attribute.ALLOWED_MECHANISMS]))

    return token._connection.perform(Errand(verb=read))


def signs_by(token: Hsm, key: KeyRef, mechanism: Mechanism) -> bool:
    """Whether the token itself lets the private half sign by ``mechanism``."""
    named = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: key.kid.bytes}

    def try_it(_token: Any, session: Any) -> bool:
        (found,) = session.find(named)
        try:
            Key(session, Handle.of(found)).sign(b"data", mechanism=mechanism)
        except PKCS11Error:
            return False
        return True

    return token._connection.perform(Errand(verb=try_it))


def sign_digests() -> dict[str, Any]:
    """Sign with keys that were imported and generated; tell all that came of it."""
    token, private = _started(), rsa.generate_private_key(65537, 2048)
    key = new_ref(KeySpec(kty="RSA", bits=2048, signs_digests=True))
    bound = new_ref(KeySpec(kty="RSA", alg="PS256", bits=2048))
    token.import_key(key, private)
    made, offers = token.generate(bound), token.offers()
    signatures, verified = {}, {}
    for alg in RSA:
        hashed = HASHES[alg[2:]]
        in_series: list[bytes] = []
        theirs = private.sign(DATA, scheme_of(alg), hashed)
        token.each("sign", key, alg, [(DATA,)], in_series)
        digest = hashlib.new(hashed.name, DATA).digest()
        ours = token.sign(key, alg, DATA), *in_series, token.sign_digest(key, alg, digest)
        signatures[alg] = [signature.hex() for signature in ours]
        verified[alg] = [token.verify(key, alg, data, theirs) for data in (DATA, OTHER)]
    return {
        "offered": [alg for alg in offers if offers[alg].is_offered],
        "public": spki(private.public_key()),
        "signatures": signatures,
        "verified": verified,
        "generated": [spki(made.public), token.sign(bound, "PS256", DATA).hex()],
        "allowed": [
            allowed(token, bound, half)
            for half in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
        ],
        "signs PKCS #1": signs_by(token, bound, Mechanism.RSA_PKCS),
    }


def examine() -> dict[str, str]:
    """Compare with the known answers, and measure."""
    examination = opened()
    found = {alg: examination.algorithm(alg).symptom for alg in RSA}
    found["rate"] = examination.rate("sign RS256", 0).symptom
    examination.close()
    return found


@pytest.fixture(scope="module")
def token_of_digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A token that signs by RSA, and digests only."""
    settings = make_token(tmp_path_factory.mktemp("digests") / "state")
    with Path(settings["SOFTHSM2_CONF"]).open("a") as conf:
        conf.write(f"slots.mechanisms = {','.join(LEFT)}\n")
    return settings


@pytest.fixture(scope="module")
def found(token_of_digests: dict[str, str]) -> Any:
    return result_of(token_of_digests, sign_digests, proves=True)


def test_a_token_that_signs_digests_only_signs_data(found):
    assert set(RSA) <= set(found["offered"])
    assert {alg for alg in found["offered"] if alg.startswith("ES")} == set()
    for alg in RSA:
        assert len(found["signatures"][alg]) == 3
        for signature in found["signatures"][alg]:
            assert is_valid(found["public"], alg, signature)
    public, signature = found["generated"]
    assert is_valid(public, "PS256", signature)


def test_it_verifies_what_others_have_signed(found):
    assert found["verified"] == {alg: [True, False] for alg in RSA}


def test_a_key_of_such_a_token_is_bound_to_its_padding(found):
    mechanisms = [Mechanism.RSA_PKCS_PSS, Mechanism.SHA256_RSA_PKCS_PSS]
    assert found["allowed"] == [sorted(map(int, mechanisms))] * 2
    assert not found["signs PKCS #1"]


def test_the_doctor_compares_what_such_a_token_signs(token_of_digests):
    found = result_of(token_of_digests, examine, proves=True)
    assert found == dict.fromkeys(found, "")
