"""What the token itself says of our keys: read back after generation, import and unwrapping."""

import functools
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkcs11 import MGF, Attribute, KeyType, Mechanism, ObjectClass, PKCS11Error
from pkcs11.exceptions import (
    AttributeSensitive,
    AttributeTypeInvalid,
    AttributeValueInvalid,
    DeviceError,
)

import hsm
from app.service import service_of
from hsm.cryptoki.handles import Key
from hsm.cryptoki.objects import PRIVATE, PUBLIC, KeyObject
from hsm.cryptoki.session import Session
from hsm.life.work import Errand
from scripts.tokens import (
    NOT_DECRYPTING,
    OAEP_BY_ITSELF,
    SENSITIVE,
    TOLD,
    UNCHANGED,
    UNUSED,
    imported_wrapped,
)
from tests.http.test_wrapped_imports import body_of as body_of_wrapped
from tests.http.test_wrapped_imports import der, public_of, wrapped_for
from tests.shared.api import b64u, header, leave_out_if_lacking, unb64u
from tests.shared.bodies import (
    ML_DSA,
    RSA_TRANSPORTS,
    TRANSPORTS,
    body_of,
    crvs_of,
    free_body_of,
)
from tests.shared.sealing import CEK_BYTES, TAG_BYTES
from tests.shared.waiting import until

AES = KeyObject(ObjectClass.SECRET_KEY, KeyType.AES)
HMAC = KeyObject(ObjectClass.SECRET_KEY, KeyType.GENERIC_SECRET)
MAC_HALF = HMAC._replace(suffix=b"\1")
TRIED = {Attribute.ENCRYPT}
"""Of public halves whose private ones decrypt: NSS tries a new pair by that."""

USAGES = (
    Attribute.ENCRYPT,
    Attribute.DECRYPT,
    Attribute.SIGN,
    Attribute.SIGN_RECOVER,
    Attribute.VERIFY,
    Attribute.VERIFY_RECOVER,
    Attribute.WRAP,
    Attribute.UNWRAP,
    Attribute.DERIVE,
)
GUARDS = (
    Attribute.TOKEN,
    Attribute.PRIVATE,
    Attribute.SENSITIVE,
    Attribute.EXTRACTABLE,
    Attribute.MODIFIABLE,
    Attribute.COPYABLE,
)
HISTORY = (Attribute.ALWAYS_SENSITIVE, Attribute.NEVER_EXTRACTABLE, Attribute.LOCAL)
RSA_PRIVATE_MEMBERS = (
    Attribute.PRIVATE_EXPONENT,
    Attribute.PRIME_1,
    Attribute.PRIME_2,
    Attribute.EXPONENT_1,
    Attribute.EXPONENT_2,
    Attribute.COEFFICIENT,
)
IDENTITY = (Attribute.ID, Attribute.LABEL, Attribute.ALLOWED_MECHANISMS, Attribute.PUBLIC_EXPONENT)


class Expected(NamedTuple):
    """Usage attributes by object; the mechanisms that all of them allow, but for ``own``."""

    usages: Mapping[KeyObject, set[Attribute]]
    mechanisms: set[Mechanism]
    own: Mapping[KeyObject, set[Mechanism]] = {}

    def allowed(self, half: KeyObject) -> set[Mechanism]:
        return self.own.get(half, self.mechanisms)


def _signing(*mechanisms: Mechanism) -> Expected:
    return Expected({PRIVATE: {Attribute.SIGN}, PUBLIC: {Attribute.VERIFY}}, set(mechanisms))


def _agreeing() -> Expected:
    return Expected({PRIVATE: {Attribute.DERIVE}, PUBLIC: set()}, {Mechanism.ECDH1_DERIVE})


def _mac(mechanism: Mechanism) -> Expected:
    return Expected({HMAC: {Attribute.SIGN}}, {mechanism})


def _cbc_hmac(mechanism: Mechanism) -> Expected:
    return Expected(
        {MAC_HALF: {Attribute.SIGN}, AES: {Attribute.ENCRYPT, Attribute.DECRYPT}},
        {mechanism},
        own={AES: {Mechanism.AES_CBC_PAD}},
    )


WRAPPING = Expected({AES: {Attribute.WRAP, Attribute.UNWRAP}}, {Mechanism.AES_KEY_WRAP})
GCM = Expected({AES: {Attribute.ENCRYPT, Attribute.DECRYPT}}, {Mechanism.AES_GCM})

# SoftHSM has OAEP with SHA-1 only. For the others the private key therefore also decrypts, with
# the bare RSA operation (architecture §4); it keeps UNWRAP for a token that will do it natively.
OAEP_IN_PROCESS = Expected(
    {PRIVATE: {Attribute.UNWRAP, Attribute.DECRYPT}, PUBLIC: {Attribute.WRAP, *TRIED}},
    {Mechanism.RSA_PKCS_OAEP, Mechanism.RSA_X_509},
)
EXPECTED = {
    "RS256": _signing(Mechanism.SHA256_RSA_PKCS),
    "RS384": _signing(Mechanism.SHA384_RSA_PKCS),
    "RS512": _signing(Mechanism.SHA512_RSA_PKCS),
    "PS256": _signing(Mechanism.SHA256_RSA_PKCS_PSS),
    "PS384": _signing(Mechanism.SHA384_RSA_PKCS_PSS),
    "PS512": _signing(Mechanism.SHA512_RSA_PKCS_PSS),
    "ES256": _signing(Mechanism.ECDSA),
    "ES384": _signing(Mechanism.ECDSA),
    "ES512": _signing(Mechanism.ECDSA),
    "ES256K": _signing(Mechanism.ECDSA),
    "EdDSA": _signing(Mechanism.EDDSA),
    "EdDSA on Ed448": _signing(Mechanism.EDDSA),
    "Ed25519": _signing(Mechanism.EDDSA),
    "Ed448": _signing(Mechanism.EDDSA),
    "ML-DSA-44": _signing(Mechanism.ML_DSA),
    "ML-DSA-65": _signing(Mechanism.ML_DSA),
    "ML-DSA-87": _signing(Mechanism.ML_DSA),
    "MLDSA44": _signing(Mechanism.ML_DSA),
    "HS256": _mac(Mechanism.SHA256_HMAC),
    "HS384": _mac(Mechanism.SHA384_HMAC),
    "HS512": _mac(Mechanism.SHA512_HMAC),
    "A128GCM": GCM,
    "A192GCM": GCM,
    "A256GCM": GCM,
    "A128CBC-HS256": _cbc_hmac(Mechanism.SHA256_HMAC),
    "A192CBC-HS384": _cbc_hmac(Mechanism.SHA384_HMAC),
    "A256CBC-HS512": _cbc_hmac(Mechanism.SHA512_HMAC),
    "RSA-OAEP": Expected(
        {PRIVATE: {Attribute.UNWRAP}, PUBLIC: {Attribute.WRAP}}, {Mechanism.RSA_PKCS_OAEP}
    ),
    "RSA-OAEP-256": OAEP_IN_PROCESS,
    "RSA-OAEP-384": OAEP_IN_PROCESS,
    "RSA-OAEP-512": OAEP_IN_PROCESS,
    "A128KW": WRAPPING,
    "A192KW": WRAPPING,
    "A256KW": WRAPPING,
    "A128GCMKW": GCM,
    "A192GCMKW": GCM,
    "A256GCMKW": GCM,
    **{f"ECDH-ES on {crv}": _agreeing() for crv in crvs_of("ECDH-ES")},
    "ECDH-ES+A128KW": _agreeing(),
    "ECDH-ES+A192KW": _agreeing(),
    "ECDH-ES+A256KW": _agreeing(),
    "any RSA": Expected(
        {
            PRIVATE: {Attribute.SIGN, Attribute.UNWRAP, Attribute.DECRYPT},
            PUBLIC: {Attribute.VERIFY, Attribute.WRAP, *TRIED},
        },
        {
            Mechanism.SHA256_RSA_PKCS,
            Mechanism.SHA384_RSA_PKCS,
            Mechanism.SHA512_RSA_PKCS,
            Mechanism.SHA256_RSA_PKCS_PSS,
            Mechanism.SHA384_RSA_PKCS_PSS,
            Mechanism.SHA512_RSA_PKCS_PSS,
            Mechanism.RSA_PKCS_OAEP,
            Mechanism.RSA_X_509,
        },
    ),
    "any P-256": _signing(Mechanism.ECDSA),
    "any P-384": _signing(Mechanism.ECDSA),
    "any P-521": _signing(Mechanism.ECDSA),
    "any secp256k1": _signing(Mechanism.ECDSA),
    "any Ed25519": _signing(Mechanism.EDDSA),
    "any Ed448": _signing(Mechanism.EDDSA),
}


def expected_of(name: str, lacks: frozenset[str]) -> Expected:
    """What a key is to be on a token that lacks so much, and does by itself what it does not."""
    expected = EXPECTED[name]
    usages, mechanisms = dict(expected.usages), set(expected.mechanisms)
    if OAEP_BY_ITSELF not in lacks and PRIVATE in usages:
        usages |= {PRIVATE: usages[PRIVATE] - {Attribute.DECRYPT}, PUBLIC: usages[PUBLIC] - TRIED}
        mechanisms -= {Mechanism.RSA_X_509}
    if NOT_DECRYPTING in lacks and PRIVATE in usages:
        # It writes down the uses of both halves in each, but for those of wrapping.
        both = {Attribute.DECRYPT, Attribute.ENCRYPT} | usages[PRIVATE] | usages[PUBLIC]
        for half in (PRIVATE, PUBLIC):
            usages[half] = usages[half] | both - {Attribute.WRAP, Attribute.UNWRAP}
    if "CKA_DERIVE" in lacks and BODIES[name]["kty"] == "EC":
        usages[PUBLIC] = usages[PUBLIC] | {Attribute.DERIVE}
    return Expected(usages, mechanisms, expected.own)


UNTRUE = (AttributeTypeInvalid, True)
"""What a token says of a history that it has not kept."""
NOT_BOUND = "CKA_ALLOWED_MECHANISMS"
KEY_WRAPS = ("KW", "GCMKW")
UNBOUND = {
    "any RSA": {"kty": "RSA"},
    "any P-256": {"kty": "EC", "crv": "P-256"},
    "any P-384": {"kty": "EC", "crv": "P-384"},
    "any P-521": {"kty": "EC", "crv": "P-521"},
    "any secp256k1": {"kty": "EC", "crv": "secp256k1"},
    "any Ed25519": {"kty": "OKP", "crv": "Ed25519"},
    "any Ed448": {"kty": "OKP", "crv": "Ed448"},
}


BODIES = {
    **{name: body_of(*name.split(" on ")) for name in EXPECTED if name not in UNBOUND},
    **UNBOUND,
}
WRAPPED = (
    *("RS256", "any RSA", "RSA-OAEP-256", "ES256", "any P-384", "ECDH-ES on P-521"),
    *("HS512", "A256GCM", "A128KW", "A256GCMKW"),
)
"""Of those that come in wrapped one or more of each kind."""
CURVES = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(),
}

CASES = [
    *(("generated", name) for name in BODIES),
    *(("imported", name) for name in BODIES if name not in ML_DSA),
    *(("imported wrapped", name) for name in WRAPPED),
    *(
        ("unwrapped", f"{enc} by {alg}")
        for alg in TRANSPORTS
        if hsm.KEY_MANAGEMENTS[alg].transports
        for enc in (
            hsm.CONTENT_ENCRYPTIONS if alg in RSA_TRANSPORTS else ("A192GCM", "A192CBC-HS384")
        )
    ),
]


def _uint(value: int) -> str:
    return b64u(value.to_bytes((value.bit_length() + 7) // 8))


@functools.cache
def _rsa_material() -> dict[str, str]:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    return {
        "n": _uint(numbers.public_numbers.n),
        "e": _uint(numbers.public_numbers.e),
        "d": _uint(numbers.d),
        "p": _uint(numbers.p),
        "q": _uint(numbers.q),
        "dp": _uint(numbers.dmp1),
        "dq": _uint(numbers.dmq1),
        "qi": _uint(numbers.iqmp),
    }


def _material(body: Mapping[str, str]) -> dict[str, str]:
    match body["kty"]:
        case "RSA":
            return _rsa_material()
        case "EC":
            curve = CURVES[body["crv"]]
            value = ec.generate_private_key(curve).private_numbers().private_value
            return {"d": b64u(value.to_bytes((curve.key_size + 7) // 8))}
        case "OKP":
            return {"d": b64u(bytes(range(57 if body["crv"] == "Ed448" else 32)))}
        case _:
            lengths = CEK_BYTES | {"HS256": 32, "HS384": 48, "HS512": 64}
            lengths |= {f"A{bits}{kw}": bits // 8 for bits in (128, 192, 256) for kw in KEY_WRAPS}
            return {"k": b64u(bytes(range(lengths[body["alg"]])))}


def _unwrap(local: Any, enc: str, alg: str) -> str:
    named = {"kid": local.shared(**free_body_of(alg))["kid"], "alg": alg, "enc": enc, "data": ""}
    jwe = local.ok("/encrypt", named)
    body = {"protected": jwe["protected"], "encrypted_key": jwe["encrypted_key"]}
    return str(local.ok("/keys/unwrap", body)["kid"])


@functools.cache
def _private_key(kind: str) -> Any:
    """A key to wrap, made once."""
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(CURVES[kind])


def _kind(body: Mapping[str, str]) -> str:
    """The curve of such keys, or their kind where they are on none."""
    spec = hsm.KeySpec(kty=body["kty"], alg=body.get("alg"), crv=body.get("crv"))
    return spec.crv or spec.kind.name


def _wrap(local: Any, body: Mapping[str, str]) -> str:
    """Import a key of ``body``, wrapped for a key that is quickly made."""
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr("hsm.importing.wrapped_imports._BITS", 1024)
        wrapping = local.ok("/wrapping-keys", {})
    if body["kty"] == "oct":
        octets, public = unb64u(_material(body)["k"]), {}
    else:
        key = _private_key(body.get("crv", "RSA"))
        octets, public = der(key), public_of(key)
    request = body_of_wrapped(wrapping, wrapped_for(wrapping, octets), **public | dict(body))
    return str(local.create(**request)["kid"])


def _make(local: Any, origin: str, name: str) -> str:
    if origin == "unwrapped":
        return _unwrap(local, *name.split(" by "))
    if origin == "imported wrapped":
        return _wrap(local, BODIES[name])
    material = _material(BODIES[name]) if origin == "imported" else {}
    return local.create(**BODIES[name], **material)["kid"]


def _read(found: Any, attribute: Attribute) -> Any:
    """The value of ``attribute``, or the class of the refusal to tell it."""
    try:
        return found[attribute]
    except PKCS11Error as error:
        return type(error)


def _objects(session: Any, kid: str) -> list[Any]:
    ids = UUID(kid).bytes, UUID(kid).bytes + MAC_HALF.suffix
    found = [one for key_id in ids for one in session.find({Attribute.ID: key_id})]
    return list({one.handle: one for one in found}.values())  # SoftHSM may find one twice


def _half(found: Mapping[Attribute, Any]) -> KeyObject:
    is_secret = found[Attribute.CLASS] is ObjectClass.SECRET_KEY
    key_type = found[Attribute.KEY_TYPE] if is_secret else None
    return KeyObject(found[Attribute.CLASS], key_type, found[Attribute.ID][16:])


class Made(NamedTuple):
    """A key, and what the token says of its objects, by attribute."""

    kid: str
    origin: str
    name: str
    expected: Expected
    objects: list[dict[Attribute, Any]]

    @property
    def kept(self) -> list[dict[Attribute, Any]]:
        """The private and secret objects."""
        return [found for found in self.objects if _half(found) != PUBLIC]


@pytest.fixture
def token(application: Any) -> Any:
    """What runs a function of (token, session) on the token of this process."""
    connection = service_of(application).hsm._connection
    return lambda verb: connection.perform(Errand(verb=verb))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def made(
    request: pytest.FixtureRequest, application: Any, local: Any, lacks: frozenset[str]
) -> Iterator[Made]:
    """A key of each alg, or bound to none, generated, imported or unwrapped."""
    origin, name = request.param
    if origin == "imported wrapped":
        leave_out_if_lacking(lacks, imported_wrapped(_kind(BODIES[name])))
    kid = _make(local, origin, name)
    attributes = (
        Attribute.CLASS,
        Attribute.KEY_TYPE,
        *USAGES,
        *GUARDS,
        *HISTORY,
        *IDENTITY,
        Attribute.VALUE,
    )

    def snapshots(_token: Any, session: Any) -> list[dict[Attribute, Any]]:
        return [
            {name: _read(found, name) for name in (*attributes, *RSA_PRIVATE_MEMBERS)}
            for found in _objects(session, kid)
        ]

    objects = service_of(application).hsm._connection.perform(Errand(verb=snapshots))
    expected = expected_of(name.partition(" by ")[0], lacks)
    yield Made(kid, origin, name, expected, objects)
    assert local.delete(kid).status == 204


def test_every_half_is_there_once_under_the_kid_and_its_label(made):
    assert Counter(map(_half, made.objects)) == Counter(made.expected.usages.keys())
    for found in made.objects:
        assert found[Attribute.ID] == UUID(made.kid).bytes + _half(found).suffix
        assert found[Attribute.LABEL] == f"jose-hsm:{made.kid}"[:32]


def _unless(is_lacking: bool, value: Any) -> Any:
    """What is read of an attribute that objects of the token may not have."""
    return AttributeTypeInvalid if is_lacking else value


def test_private_and_secret_objects_are_guarded(made, lacks):
    is_copyable = _unless("CKA_COPYABLE" in lacks, False)
    for found in made.kept:
        assert {name: found[name] for name in GUARDS} == {
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.MODIFIABLE: False,
            Attribute.COPYABLE: is_copyable,
        }


def test_public_halves_are_kept_and_cannot_be_changed(made, lacks):
    is_copyable = _unless("CKA_COPYABLE" in lacks, False)
    for found in made.objects:
        assert found[Attribute.TOKEN] is True
        assert found[Attribute.MODIFIABLE] is False
        assert found[Attribute.COPYABLE] is is_copyable


def test_key_material_cannot_be_read(made, lacks):
    refusals: set[type[PKCS11Error]] = {AttributeSensitive}
    if SENSITIVE in lacks:
        refusals |= {AttributeTypeInvalid, AttributeValueInvalid}
    for found in made.kept:
        is_rsa = "kty" in (body := BODIES.get(made.name, {})) and body["kty"] == "RSA"
        secret = RSA_PRIVATE_MEMBERS if is_rsa else (Attribute.VALUE,)
        assert {found[name] for name in secret} <= refusals
        others = {Attribute.VALUE, *RSA_PRIVATE_MEMBERS} - set(secret)
        assert {found[name] for name in others} <= refusals | {AttributeTypeInvalid}


def test_the_history_says_whether_a_key_was_ever_outside(made, lacks):
    is_generated = made.origin == "generated"
    expected = dict.fromkeys(HISTORY, is_generated)
    if "CKA_LOCAL" in lacks:
        expected[Attribute.LOCAL] = False
    lacking = {name for name in HISTORY if f"CKA_{name.name}" in lacks and not is_generated}
    for found in made.kept:
        untrue = {name: found[name] for name in lacking if found[name] in UNTRUE}
        assert {name: found[name] for name in HISTORY} == expected | untrue


def test_usages_are_the_least_that_the_algorithms_need(made):
    def granted(found: Mapping[Attribute, Any]) -> set[Attribute]:
        return {usage for usage in USAGES if found[usage] is True}

    assert {_half(found): granted(found) for found in made.objects} == made.expected.usages


def test_allowed_mechanisms_are_those_of_the_algorithms(made, lacks):
    for found in made.objects:
        expected = made.expected.allowed(_half(found))
        if found[Attribute.ALLOWED_MECHANISMS] is DeviceError:
            leave_out_if_lacking(lacks, TOLD)
        assert found[Attribute.ALLOWED_MECHANISMS] == _unless(NOT_BOUND in lacks, expected)


def test_no_object_both_wraps_and_decrypts_or_unwraps_and_encrypts(made, lacks):
    tells_halves = NOT_DECRYPTING not in lacks
    for found in made.objects if tells_halves else made.kept:
        assert not (found[Attribute.WRAP] is True and found[Attribute.DECRYPT] is True)
        unwraps = tells_halves and found[Attribute.UNWRAP] is True
        assert not (unwraps and found[Attribute.ENCRYPT] is True)


def test_the_public_exponent_is_65537(made):
    for found in made.objects:
        exponent = found[Attribute.PUBLIC_EXPONENT]
        assert exponent in (b"\x01\x00\x01", AttributeTypeInvalid)
    if made.name in EXPECTED and BODIES[made.name]["kty"] == "RSA":
        assert all(found[Attribute.PUBLIC_EXPONENT] == b"\x01\x00\x01" for found in made.objects)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        (Attribute.EXTRACTABLE, True),
        (Attribute.SENSITIVE, False),
        (Attribute.LABEL, "another"),
        (Attribute.DECRYPT, True),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_no_attribute_can_be_set(made, token, attribute, value, lacks):
    leave_out_if_lacking(lacks, UNCHANGED)

    def set_all(_token: Any, session: Any) -> None:
        for found in _objects(session, made.kid):
            with pytest.raises(PKCS11Error):
                found[attribute] = value

    token(set_all)


def test_no_object_can_be_copied(made, token, lacks):
    leave_out_if_lacking(lacks, "CKA_COPYABLE")

    def copy_all(_token: Any, session: Any) -> None:
        for found in _objects(session, made.kid):
            with pytest.raises(PKCS11Error):
                found.copy({Attribute.TOKEN: False})

    token(copy_all)


PSS = {
    Mechanism.SHA256_RSA_PKCS_PSS: (Mechanism.SHA256, MGF.SHA256, 32),
    Mechanism.SHA384_RSA_PKCS_PSS: (Mechanism.SHA384, MGF.SHA384, 48),
    Mechanism.SHA512_RSA_PKCS_PSS: (Mechanism.SHA512, MGF.SHA512, 64),
}
RSA_SIGNING = [
    Mechanism.RSA_PKCS,
    Mechanism.RSA_X_509,
    Mechanism.SHA1_RSA_PKCS,
    Mechanism.SHA256_RSA_PKCS,
    Mechanism.SHA384_RSA_PKCS,
    Mechanism.SHA512_RSA_PKCS,
    *PSS,
]
RSA_DECRYPTION = [Mechanism.RSA_PKCS, Mechanism.RSA_X_509, Mechanism.RSA_PKCS_OAEP]
HMACS = [Mechanism.SHA_1_HMAC, Mechanism.SHA256_HMAC, Mechanism.SHA384_HMAC, Mechanism.SHA512_HMAC]
CIPHERS = [Mechanism.AES_ECB, Mechanism.AES_CBC, Mechanism.AES_CBC_PAD]
BLOCK = bytes(16)
PARAMS = {
    **PSS,
    Mechanism.RSA_PKCS_OAEP: (Mechanism.SHA_1, MGF.SHA1, None),
    Mechanism.AES_CBC: BLOCK,
    Mechanism.AES_CBC_PAD: BLOCK,
}
ATTEMPTS = {
    "RSA": [("sign", name) for name in RSA_SIGNING]
    + [("decrypt", name) for name in RSA_DECRYPTION],
    "EC": [("sign", Mechanism.ECDSA_SHA1), ("sign", Mechanism.ECDSA_SHA256)],
    "OKP": [("sign", Mechanism.ECDSA)],
    "AKP": [("sign", Mechanism.ECDSA)],
    "oct": [("sign", name) for name in HMACS]
    + [(verb, name) for verb in ("encrypt", "decrypt") for name in CIPHERS],
}
VERBS = {"sign": Attribute.SIGN, "encrypt": Attribute.ENCRYPT, "decrypt": Attribute.DECRYPT}


def test_the_token_itself_refuses_what_the_key_is_not_bound_to(made, token, lacks):
    leave_out_if_lacking(lacks, UNUSED)
    kty = BODIES[made.name]["kty"] if made.name in BODIES else "oct"
    foreign = [
        (half, verb, mechanism)
        for half in set(made.expected.usages) - {PUBLIC}
        for verb, mechanism in ATTEMPTS[kty]
        if VERBS[verb] not in made.expected.usages[half]
        or (NOT_BOUND not in lacks and mechanism not in made.expected.allowed(half))
    ]
    if not foreign:
        leave_out_if_lacking(lacks, NOT_BOUND)
    assert foreign

    def use(half: KeyObject, verb: str, mechanism: Mechanism) -> Any:
        message = bytes(256) if kty == "RSA" and mechanism is Mechanism.RSA_X_509 else BLOCK

        def call(lent: Any, session: Any) -> Any:
            handle = lent.stores["token"]._handle(session, UUID(made.kid), half)
            key = Key(session, handle)
            return getattr(key, verb)(
                message, mechanism=mechanism, mechanism_param=PARAMS.get(mechanism)
            )

        return call

    for half, verb, mechanism in foreign:
        with pytest.raises(hsm.CryptoFailure):
            token(use(half, verb, mechanism))


def _is_kek_alone(token: Any) -> bool:
    """Tell whether the key-encryption key is the only session object there is now.

    One that is gone before it has been looked at was not alone.
    """

    def look(_token: Any, session: Any) -> list[tuple[bool, bool, int]]:
        return [
            (found[Attribute.WRAP], found[Attribute.EXTRACTABLE], found[Attribute.VALUE_LEN])
            for found in list(session.find({Attribute.TOKEN: False, Attribute.PRIVATE: True}))
        ]

    with suppress(hsm.HsmError):
        return bool(token(look) == [(True, False, 32)])
    return False


@pytest.fixture(scope="module", params=TRANSPORTS)
def wrapping(request: pytest.FixtureRequest, application: Any, local: Any) -> tuple[str, str]:
    """A key for each key management algorithm."""
    return local.shared(**free_body_of(request.param))["kid"], request.param


@pytest.mark.parametrize(
    ("enc", "other_enc"), [("A256GCM", "A128GCM"), ("A256CBC-HS512", "A128CBC-HS256")]
)
def test_only_the_key_encryption_key_is_a_session_object(enc, other_enc, wrapping, token, local):
    """Whoever looks after the token makes a CEK to try it, and destroys that at once, too."""
    kid, alg = wrapping
    jwe = local.ok("/encrypt", {"kid": kid, "alg": alg, "enc": enc, "data": ""})
    bad_key = b64u(bytes(256))
    members = json.loads(unb64u(jwe["protected"]))
    other_size = header(**members | {"enc": other_enc})
    other_tag = b64u(bytes(TAG_BYTES[other_enc]))
    attempts = [
        ("/encrypt", {"kid": kid, "alg": alg, "enc": enc, "data": ""}, 200),
        ("/decrypt", jwe, 200),
        ("/decrypt", jwe | {"tag": b64u(bytes(TAG_BYTES[enc]))}, 422),
        ("/decrypt", jwe | {"protected": other_size, "tag": other_tag}, 422),
    ]
    if jwe["encrypted_key"]:
        attempts += [
            ("/decrypt", jwe | {"encrypted_key": bad_key}, 422),
            ("/keys/unwrap", jwe | {"encrypted_key": bad_key}, 422),
            ("/keys/unwrap", jwe | {"protected": other_size}, 422),
        ]
    for path, body, status in attempts:
        assert local.post(path, body).status == status
        until(lambda: _is_kek_alone(token))
    if jwe["encrypted_key"]:
        unwrapped = local.ok("/keys/unwrap", jwe)["kid"]
        until(lambda: _is_kek_alone(token))
        assert local.delete(unwrapped).status == 204
        until(lambda: _is_kek_alone(token))


class Born(NamedTuple):
    """An object as it is made for one message, before anybody has used it."""

    object_class: Any
    key_type: Any
    is_extractable: bool
    usages: frozenset[Attribute]


def test_objects_of_one_message_are_good_for_what_they_are_for_and_nothing_else(
    token, local, application, monkeypatch, lacks
):
    """Look at each session object that an agreement with key wrapping makes, as it is made."""
    kid = local.create(**body_of("ECDH-ES+A256KW"))["kid"]
    born, own = [], threading.get_ident()  # the canary makes a CEK in a thread of its own

    def look(made: Any) -> Any:
        usages = frozenset(usage for usage in USAGES if _read(made, usage) is True)
        kind = made[Attribute.CLASS], made[Attribute.KEY_TYPE]
        born.append(Born(*kind, _read(made, Attribute.EXTRACTABLE) is True, usages))
        if made[Attribute.CLASS] is not ObjectClass.PUBLIC_KEY:
            assert made[Attribute.SENSITIVE]
            assert _read(made, Attribute.VALUE) is AttributeSensitive
        return made

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(self: Any, *arguments: Any, **named: Any) -> Any:
            made = original(self, *arguments, **named)
            if threading.get_ident() != own:
                return made
            return tuple(map(look, made)) if isinstance(made, tuple) else look(made)

        monkeypatch.setattr(owner, name, call)

    for name in ("generate_key", "generate_keypair", "create_object"):
        watch(Session, name)
    for name in ("derive_key", "unwrap_key"):
        watch(Key, name)
    jwe = local.ok("/encrypt", {"kid": kid, "alg": "ECDH-ES+A256KW", "enc": "A128GCM", "data": ""})
    local.ok("/decrypt", jwe)

    secret = ObjectClass.SECRET_KEY
    ephemeral = Born(ObjectClass.PRIVATE_KEY, KeyType.EC, False, frozenset({Attribute.DERIVE}))
    z = Born(secret, KeyType.GENERIC_SECRET, False, frozenset())
    wraps = frozenset({Attribute.WRAP, Attribute.UNWRAP})
    kek = Born(secret, KeyType.AES, False, wraps)
    encrypts = frozenset({Attribute.ENCRYPT, Attribute.DECRYPT})
    cek = Born(secret, KeyType.AES, True, encrypts)
    derives = frozenset({Attribute.DERIVE} if "CKA_DERIVE" in lacks else ())
    point = Born(ObjectClass.PUBLIC_KEY, KeyType.EC, False, derives)
    # Encrypted, decrypted for the check of the result, decrypted; each time a substitute too.
    assert Counter(born) == {point: 1, ephemeral: 1, z: 3, kek: 3, cek: 5}
    assert local.delete(kid).status == 204
