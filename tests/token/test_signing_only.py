"""A token that makes stored pairs and nothing else: it signs, and the service watches it by that.

So does tpm2-pkcs11, whose pairs may all decrypt.
"""

import base64
from collections import Counter
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from pkcs11 import Attribute, MechanismFlag, ObjectClass, PKCS11Error
from pkcs11.exceptions import FunctionFailed

import hsm
from hsm import KeyRef, KeySpec, Storage
from hsm.algorithms.families import Family
from hsm.cryptoki.attributes import STORED_TRIAL, Templates
from hsm.cryptoki.canary import CANARY_IDS
from hsm.cryptoki.faults import Fault, fault_of
from hsm.cryptoki.usages import require_usages
from hsm.errors import CryptoFailure
from hsm.life.proof import Proof
from hsm.life.variants import clear
from hsm.life.work import Errand
from scripts.throwaway import make_token
from tests.shared.drivers import result_of
from tests.token.test_connection import ES256, _injector, _outcome, _started
from tests.token.test_variants import is_true, template_at

pytestmark = pytest.mark.usefixtures("softhsm")

FUNCTION_NOT_SUPPORTED = 0x54
ATTRIBUTE_VALUE_INVALID = 0x13
GENERAL_ERROR = 0x05
TEMPLATES = {"C_GenerateKeyPair": 4, "C_CreateObject": 1, "C_UnwrapKey": 5, "C_DeriveKey": 3}
"""Which argument is the template of the secret or private object, before its length."""
CLASSES = (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
SIGNED = b"what is signed"
KEYS = {
    "ES256": KeyRef(kid=UUID(int=1 << 96), spec=ES256, storage=Storage.TOKEN),
    "RS256": KeyRef(
        kid=UUID(int=2 << 96),
        spec=KeySpec(kty="RSA", alg="RS256", bits=2048),
        storage=Storage.TOKEN,
    ),
}


def _only_store_pairs() -> None:
    chaos = _injector()

    def refuse(at: int, original: Any, *words: int) -> int:
        template = template_at(*words[at : at + 2])
        if not is_true(template, Attribute.TOKEN):
            return ATTRIBUTE_VALUE_INVALID
        is_bad = Attribute.SIGN in template and not is_true(template, Attribute.DECRYPT)
        return GENERAL_ERROR if is_bad else int(original(*words))

    chaos.fail("C_GenerateKey", FUNCTION_NOT_SUPPORTED)
    for name, at in TEMPLATES.items():
        chaos.replace(name, partial(refuse, at))


def _count(_token: Any, session: Any) -> Counter[str]:
    found = [made for kind in CLASSES for made in session.find({Attribute.CLASS: kind})]
    return Counter(bytes(session.read(made, Attribute.ID)).hex() for made in found)


def _stay(self: Proof) -> None:
    """Leave what was made to try with, as a process does that is killed."""


def boot(is_first: bool) -> dict[str, Any]:
    """Open such a token, make keys, or use and destroy those that are there; leave the trials."""
    _only_store_pairs()
    if is_first:
        Proof.close = _stay  # type: ignore[method-assign]  # of this process
    token = _started()
    made = {name: token.generate(ref).public for name, ref in KEYS.items() if is_first}
    found = {
        "refused": {name: offer.reason for name, offer in token.offers().items() if offer.reason},
        "public": {name: _text(key) for name, key in made.items()},
        "signatures": {
            name: base64.b64encode(token.sign(ref, name, SIGNED)).decode()
            for name, ref in KEYS.items()
        },
        "objects": token._connection.perform(Errand(verb=_count)),
    }
    if not is_first:
        found["destroyed"] = [_outcome(partial(token.destroy, ref)) for ref in KEYS.values()]
        found["left"] = token._connection.perform(Errand(verb=_count))
    return found


def _text(key: Any) -> str:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def _verify(name: str, public: str, signature: str) -> None:
    key: Any = load_der_public_key(base64.b64decode(public))
    octets = base64.b64decode(signature)
    if name == "RS256":
        key.verify(octets, SIGNED, padding.PKCS1v15(), hashes.SHA256())
    else:
        r, s = int.from_bytes(octets[:32]), int.from_bytes(octets[32:])
        key.verify(encode_dss_signature(r, s), SIGNED, ec.ECDSA(hashes.SHA256()))


def test_a_token_that_makes_only_stored_pairs_signs_and_keeps_one_canary(tmp_path):
    environment = make_token(tmp_path / "state")
    first = result_of(environment, boot, True, proves=True)
    second = result_of(environment, boot, False, proves=True)
    signing = {n for n, row in hsm.ALGORITHMS.items() if row.family is Family.SIGNATURE}
    no_ml_dsa = {n for n in signing if "DSA" in n and n != "EdDSA"}
    for found in (first, second):
        assert found["refused"].keys() == hsm.ALGORITHMS.keys() - signing | no_ml_dsa
        assert found["refused"]["RSA-OAEP"] == "the token answers FunctionNotSupported"
        for name, signature in found["signatures"].items():
            _verify(name, first["public"][name], signature)
    canary, trial = CANARY_IDS[2].hex(), STORED_TRIAL["id"].hex()
    assert first["objects"][trial] > 0
    keys = {ref.kid.bytes.hex(): 2 for ref in KEYS.values()}
    assert second["objects"] == keys | {canary: 2}
    assert second["destroyed"] == ["done", "done"]
    assert second["left"] == {canary: 2}


def test_pairs_to_try_with_are_made_anew_where_another_process_has_destroyed_them(token):
    row = hsm.SIGNATURES["ES256"]
    (curve,) = row.curves

    def attempt(of: Any, session: Any) -> list[str]:
        proof = Proof(of.pool.anchor, Templates(stores_trials=True), of.canary)
        proof.attempt(row, curve, session)
        clear(session)
        with pytest.raises(PKCS11Error) as caught:
            proof.attempt(row, curve, session)
        assert fault_of(caught.value) is Fault.KEY_GONE
        proof.attempt(row, curve, session)
        proof.close()
        return [str(made) for made in session.find({Attribute.ID: STORED_TRIAL["id"]})]

    assert token._connection.perform(Errand(verb=attempt)) == []


def test_what_the_public_half_does_gives_nothing_away_where_the_private_one_says_so(token):
    key = KeyRef(kid=UUID(int=3 << 96), spec=ES256, storage=Storage.TOKEN)
    token.generate(key)
    both = MechanismFlag.SIGN | MechanismFlag.VERIFY
    of_the_public = {Attribute.ENCRYPT: True, Attribute.VERIFY: True}

    def look(_token: Any, session: Any) -> list[str]:
        named = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: key.kid.bytes}
        (made,) = session.find(named)
        require_usages(made, both, {Attribute.SIGN: True} | of_the_public)
        with pytest.raises(CryptoFailure):
            require_usages(made, both, {Attribute.SIGN: True, Attribute.DECRYPT: True})
        with pytest.raises(FunctionFailed):
            require_usages(made, both, of_the_public)
        return []

    token._connection.perform(Errand(verb=look))
    token.destroy(key)
