"""POST /rewrap: a message for one key becomes one for another."""

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from pkcs11 import Attribute, ObjectClass
from pkcs11.exceptions import AttributeSensitive

import hsm
from app.keys.budget import MOST_ENCRYPTIONS
from app.service import service_of
from hsm.cryptoki.handles import handle_of
from hsm.operations import content
from hsm.operations.timing import FAILURE_SECONDS
from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.bodies import RSA_TRANSPORTS, TRANSPORTS
from tests.shared.injector import DEVICE_ERROR, NAMES, OK, Injector
from tests.shared.reads import reads_of, unasked
from tests.shared.sealing import CEK_BYTES, IV_BYTES, seal

Body = dict[str, Any]

MESSAGE = b"You can trust us to stick with you through thick and thin"
WRAPPING = tuple(name for name in TRANSPORTS if hsm.KEY_MANAGEMENTS[name].transports)
CLASSES = ("RSA-OAEP", "RSA-OAEP-256", "A256KW", "A128GCMKW", "ECDH-ES+A192KW")
"""Of each way of a CEK one, all known to the peer."""
UNKNOWN = {"RSA-OAEP-384": hashes.SHA384(), "RSA-OAEP-512": hashes.SHA512()}
"""What the peer does not know."""
DIRECT: Mapping[str, Body] = {
    "dir": {"kty": "oct", "alg": "A256GCM"},
    "ECDH-ES": {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES"},
}
"""Keys that are CEKs, or agree on one."""
ENCS = ("A128GCM", "A256CBC-HS512")
ABOUT_SESSIONS = ("C_OpenSession", "C_CloseSession", "C_GetSessionInfo", "C_FindObjects")
PERFORMING = [name for name in NAMES if not name.startswith(ABOUT_SESSIONS)]
"""What does not depend on who else has had a session, or found the key."""
MADE_BY = {
    "C_CreateObject": 1,
    "C_GenerateKey": 1,
    "C_UnwrapKey": 1,
    "C_DeriveKey": 1,
    "C_GenerateKeyPair": 2,
    "C_DestroyObject": -1,
}
IN_TOKEN = ("RSA-OAEP", "A128KW", "A256KW")
FAILED = (422, b'{"error":"decryption_failed","description":"Decryption failed"}\n')


# --- Keys, which a peer has too, and messages that it makes and opens ---


class Keys(NamedTuple):
    """Keys that a peer and the service have, by algorithm; the kids of ``DIRECT`` ones, too."""

    jwks: Mapping[str, JWK]
    kids: Mapping[str, str]

    def to(self, alg: str) -> Body:
        """What a request says of the new key."""
        return {"kid": self.kids[alg], "alg": alg}

    def sent(self, *algs: str, enc: str = "A128GCM", **parts: Any) -> Body:
        """What the peer makes for those keys; nothing that names them is protected."""
        if algs[0] in UNKNOWN:
            return self._sent_by_hand(algs[0], enc)
        sender = JWE(MESSAGE, json.dumps({"enc": enc, "typ": "x"}), **parts)
        sender.allowed_algs = [*WRAPPING, enc]
        for alg in algs:
            sender.add_recipient(self.jwks[alg], json.dumps({"alg": alg, "kid": self.kids[alg]}))
        made: Body = json.loads(sender.serialize())
        if "recipients" not in made:
            made["recipients"] = [{name: made.pop(name) for name in ("header", "encrypted_key")}]
        return made

    def _sent_by_hand(self, alg: str, enc: str) -> Body:
        protected, cek = header(enc=enc), bytes(range(CEK_BYTES[enc]))
        sealed = seal(enc, cek, bytes(IV_BYTES[enc]), MESSAGE, protected.encode())
        hash_algorithm = UNKNOWN[alg]
        oaep = padding.OAEP(padding.MGF1(hash_algorithm), hash_algorithm, None)
        public = load_pem_public_key(self.jwks[alg].export_to_pem())
        assert isinstance(public, RSAPublicKey)
        octets = b64u(public.encrypt(cek, oaep))
        one = {"header": {"alg": alg, "kid": self.kids[alg]}, "encrypted_key": octets}
        parts = {name: b64u(part) for name, part in sealed._asdict().items()}
        return {"protected": protected, "recipients": [one], **parts}


def jwk_for(alg: str) -> JWK:
    bits = 8 * hsm.KEY_MANAGEMENTS[alg].key_bytes
    if bits:
        return JWK.generate(kty="oct", size=bits)
    return JWK.generate(kty="EC", crv="P-256")


@pytest.fixture(scope="module")
def keys(local: Api) -> Keys:
    """One of RSA for all that is RSA, and one for each other algorithm."""
    rsa = JWK.generate(kty="RSA", size=2048)
    others = {alg: jwk_for(alg) for alg in WRAPPING if alg not in RSA_TRANSPORTS}
    kids = {
        alg: local.create(**jwk.export(as_dict=True), alg=alg)["kid"] for alg, jwk in others.items()
    }
    kids |= dict.fromkeys(RSA_TRANSPORTS, local.create(**rsa.export(as_dict=True))["kid"])
    kids |= {alg: local.create(**members)["kid"] for alg, members in DIRECT.items()}
    return Keys(dict.fromkeys(RSA_TRANSPORTS, rsa) | others, kids)


def opened(key: JWK, message: Body | str) -> bytes:
    reader = JWE(algs=[*hsm.KEY_MANAGEMENTS, "dir", *hsm.CONTENT_ENCRYPTIONS])
    text = message if isinstance(message, str) else json.dumps(message)
    reader.deserialize(text, key)
    return bytes(reader.payload)


@contextmanager
def no_object_left(chaos: Injector, failing: str = "", *, after: int = 0) -> Iterator[None]:
    """Objects that this thread makes end in the ``with`` block.

    Calls of ``failing`` do so from then on.
    """
    number: Counter[str] = Counter()

    def count(name: str, made: int, original: Any, *words: int) -> int:
        number[name] += 1
        if name == failing and number[name] > after:
            return DEVICE_ERROR
        answer = int(original(*words))
        number["objects"] += made * (answer == OK)
        return answer

    for name in {*MADE_BY, failing} - {""}:
        chaos.replace_own(name, partial(count, name, MADE_BY.get(name, 0)))
    yield
    assert number["objects"] == 0
    assert number["C_DestroyObject"] or failing


# --- What changes, and what does not ---


@pytest.mark.parametrize("new", CLASSES)
@pytest.mark.parametrize("old", WRAPPING)
def test_the_new_key_opens_it_and_only_its_recipient_has_changed(local, chaos, keys, old, new):
    for enc in ENCS:
        message = keys.sent(old, enc=enc)
        with no_object_left(chaos):
            made = local.ok("/rewrap", message | {"to": keys.to(new)})
        [one] = made["recipients"]
        assert made | {"recipients": []} == message | {"recipients": []}
        is_same = one["encrypted_key"] == message["recipients"][0]["encrypted_key"]
        assert is_same is (old == new == "A256KW")  # the same key wraps the same CEK in one way
        assert (one["header"]["alg"], one["header"]["kid"]) == (new, keys.kids[new])
        assert opened(keys.jwks[new], made) == MESSAGE


def test_of_three_recipients_one_changes_and_all_open_it(local, keys):
    algs = ("RSA-OAEP", "A128KW", "ECDH-ES+A256KW")
    message = keys.sent(*algs, aad="of all", unprotected=json.dumps({"jku": "https://x"}))
    for place, alg in enumerate(algs):
        made = local.ok("/rewrap", message | {"kid": keys.kids[alg], "to": keys.to("A192KW")})
        one = made["recipients"][place]
        assert one["header"] == {"alg": "A192KW", "kid": keys.kids["A192KW"]}
        others = [*message["recipients"][:place], one, *message["recipients"][place + 1 :]]
        assert made == message | {"recipients": others}
        for name in {*algs, "A192KW"} - {alg}:
            alone = next(one for one in others if one["header"]["alg"] == name)
            assert opened(keys.jwks[name], made | {"recipients": [alone]}) == MESSAGE


def test_what_all_recipients_have_in_common_goes_to_those_who_stay(local, keys):
    message = keys.sent("A128KW", "A128KW", aad="x")
    shared = {"alg": "A128KW", "x": 1, "x5t#S256": "theirs", "jku": "https://of-all.example"}
    names = [{"kid": keys.kids["A128KW"], "y": 2, "x5t": "old"}, {"kid": "somebody's"}]
    for one, its in zip(message["recipients"], names, strict=True):
        one["header"] = its
    made = local.ok("/rewrap", message | {"unprotected": shared, "to": keys.to("A256KW")})
    assert made["unprotected"] == {"x": 1, "jku": "https://of-all.example"}
    assert [one["header"] for one in made["recipients"]] == [
        {"alg": "A256KW", "kid": keys.kids["A256KW"], "y": 2},
        {"alg": "A128KW", "x5t#S256": "theirs", "kid": "somebody's"},
    ]
    for key, one in zip(
        (keys.jwks["A256KW"], keys.jwks["A128KW"]), made["recipients"], strict=True
    ):
        assert opened(key, made | {"recipients": [one]}) == MESSAGE


def test_the_key_that_a_message_was_for_is_named_no_more(local, keys):
    message = keys.sent("A128KW")
    [one] = message.pop("recipients")
    shared = {"jwk": {"kty": "EC"}, "x5t": "old", "x": 1}
    asked = message | one | {"unprotected": shared, "to": keys.to("A256KW")}
    made = local.ok("/rewrap", asked)
    assert made["unprotected"] == {"x": 1}
    assert made["header"] == {"alg": "A256KW", "kid": keys.kids["A256KW"]}
    assert opened(keys.jwks["A256KW"], made) == MESSAGE


def test_a_member_that_nobody_used_is_not_there_twice(local, keys):
    message = keys.sent("A128KW")
    shared = {"unprotected": {"epk": None, "x": None}}
    made = local.ok("/rewrap", message | shared | {"to": keys.to("ECDH-ES+A192KW")})
    assert made["unprotected"] == {"x": None}
    assert opened(keys.jwks["ECDH-ES+A192KW"], made) == MESSAGE


def test_a_flattened_message_that_protects_no_name_keeps_its_cek_too(local, keys):
    message = keys.sent("A128KW")
    [one] = message.pop("recipients")
    made = local.ok("/rewrap", message | one | {"to": keys.to("A256KW")})
    changed = {name: made[name] for name in one}
    assert made == message | changed
    assert made["header"] == {"alg": "A256KW", "kid": keys.kids["A256KW"]}
    assert opened(keys.jwks["A256KW"], made) == MESSAGE


def test_a_key_named_beside_the_message_is_found_among_the_recipients(local, keys):
    message = keys.sent("A128KW", "A128KW")
    for one in message["recipients"]:
        one["header"]["kid"] = "theirs"
    message["recipients"][0]["encrypted_key"] = b64u(bytes(24))
    body = message | {"kid": keys.kids["A128KW"], "to": keys.to("RSA-OAEP")}
    first, second = local.ok("/rewrap", body)["recipients"]
    assert first == message["recipients"][0]
    assert second["header"]["kid"] == keys.kids["RSA-OAEP"]


def test_the_answer_is_called_by_the_alias_of_the_new_key(local, keys):
    alias = f"new-{uuid4().hex}"
    local.create(**keys.jwks["A256KW"].export(as_dict=True), alg="A256KW", alias=alias)
    message = keys.sent("A128KW")
    made = local.ok("/rewrap", message | {"to": {"kid": alias, "alg": "A256KW"}})
    assert made["recipients"][0]["header"]["kid"] == alias
    assert opened(keys.jwks["A256KW"], made) == MESSAGE


# --- Where the CEK is ---


def attributes(session: Any, handle: int, names: Iterable[Attribute]) -> Mapping[Attribute, Any]:
    """What the token says of a session object now; its value is not told."""
    template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.TOKEN: False}
    found = next(one for one in session.find(template) if handle_of(one) == handle)
    with pytest.raises(AttributeSensitive):
        found[Attribute.VALUE]
    return {name: found[name] for name in names}


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch, lacks: frozenset[str], local: Api) -> list[bool]:
    """Of each CEK that opens a message: whether the token guards it."""
    local.get("/capabilities")  # whoever asks first has keys tried, which are no CEKs
    expected = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: True, Attribute.PRIVATE: True}
    if "CKA_COPYABLE" not in lacks:
        expected[Attribute.COPYABLE] = False
    seen: list[bool] = []
    unseal = content.unseal

    def look(cek: Any, *arguments: Any, **named: Any) -> bytes:
        seen.append(attributes(cek.session, cek.secrets[0].handle, expected) == expected)
        return unseal(cek, *arguments, **named)

    monkeypatch.setattr("hsm.operations.content.unseal", look)
    return seen


@pytest.mark.parametrize("algs", list(itertools.product(IN_TOKEN, repeat=2)))
def test_the_cek_is_never_in_the_process_where_the_token_unwraps_and_wraps(
    local, chaos, guarded, keys, algs
):
    old, new = algs
    managements = local.get("/capabilities").body["key_managements"]
    assert {managements[alg]["enc"]["A128GCM"]["cek"] for alg in (old, new)} == {"token"}
    message = keys.sent(old)
    created = chaos.count_own("C_CreateObject")
    local.ok("/rewrap", message | {"to": keys.to(new)})
    assert sum(created.values()) == 0  # none has come back
    assert guarded
    assert all(guarded)


@pytest.mark.softhsm
def test_it_is_in_the_process_where_one_of_both_cannot(local, chaos, keys):
    for old, new in (("A128KW", "A128GCMKW"), ("RSA-OAEP-256", "A128KW")):
        message = keys.sent(old)
        created = chaos.count_own("C_CreateObject")
        local.ok("/rewrap", message | {"to": keys.to(new)})
        assert created["C_CreateObject"] > 0


@pytest.mark.parametrize(
    "failing",
    [
        ("A128KW", "RSA-OAEP", ("C_GenerateKey", "C_UnwrapKey", "C_WrapKey", "C_Decrypt")),
        ("RSA-OAEP", "A128GCMKW", ("C_UnwrapKey", "C_CreateObject", "C_Encrypt")),
        ("RSA-OAEP-256", "ECDH-ES+A192KW", ("C_GenerateKeyPair", "C_DeriveKey", "C_WrapKey")),
    ],
)
def test_no_object_is_left_whichever_call_fails(local, chaos, keys, failing):
    old, new, functions = failing
    body = keys.sent(old) | {"to": keys.to(new)}
    calls = chaos.count_own(*functions)
    local.ok("/rewrap", body)
    for function in functions:
        assert calls[function]
        for number in range(calls[function]):
            with no_object_left(chaos, function, after=number):
                answer = local.post("/rewrap", body)
            assert answer.status != 200 or number
            chaos.heal()
    local.ok("/rewrap", body)


# --- What is encrypted anew ---

ANEW = {
    "compact": ("A128KW", "RSA-OAEP-256"),
    "compact from a shared key": ("dir", "A256KW"),
    "compact to a shared key": ("ECDH-ES+A128KW", "dir"),
    "compact from an agreement": ("ECDH-ES", "A128GCMKW"),
    "compact to an agreement": ("RSA-OAEP", "ECDH-ES"),
}


@pytest.mark.parametrize("algs", ANEW.values(), ids=ANEW)
@pytest.mark.parametrize("form", ["compact", "flattened", "general"])
def test_whose_names_are_protected_is_encrypted_anew(local, keys, algs, form):
    (old, new), names = algs, keys.kids
    asked = {"kid": names[old], "alg": old, "enc": "A256GCM", "data": b64u(MESSAGE)}
    more = {"typ": "JWT", "cty": "x", "header": {"iat": 5, "jku": "https://old.example"}}
    aad = {} if form == "compact" else {"aad": b64u("more")}
    message = local.ok("/encrypt", asked | more | aad)
    sent_form = in_form(message, form)
    made = local.ok("/rewrap", sent_form | {"to": keys.to(new)})
    assert made.keys() == sent_form.keys()
    flat = flattened(made)
    has_none = form == "general" and new in DIRECT  # RFC 7516 §7.2.1
    assert ("encrypted_key" in flat) is not has_none
    told = json.loads(unb64u(flat["protected"]))
    assert {name: told.pop(name) for name in ("alg", "enc", "kid", "typ", "cty", "iat")} == {
        "alg": new,
        "enc": "A256GCM",
        "kid": names[new],
        "typ": "JWT",
        "cty": "x",
        "iat": 5,
    }
    assert told.keys() == {"ECDH-ES": {"epk"}, "A128GCMKW": {"iv", "tag"}}.get(new, set())
    assert flat["ciphertext"] != message["ciphertext"]
    assert flat.get("aad") == message.get("aad")
    assert MESSAGE.hex() not in json.dumps(made)
    assert local.ok("/decrypt", made) == {"kid": names[new], "data": b64u(MESSAGE)}
    assert local.post("/decrypt", made | {"kid": names[old]}).status in {400, 422}


def in_form(message: Body, form: str) -> Body:
    """The flattened ``message`` in another serialization."""
    if form == "compact":
        parts = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
        return {"jwe": ".".join(message[name] for name in parts)}
    if form == "flattened":
        return message
    shared = {name: part for name, part in message.items() if name != "encrypted_key"}
    return shared | {"recipients": [{"encrypted_key": message["encrypted_key"]}]}


def flattened(message: Body) -> Body:
    if "jwe" in message:
        parts = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
        return dict(zip(parts, message["jwe"].split("."), strict=True))
    return {**message, **message.get("recipients", [{}])[0]}


@pytest.mark.parametrize("new", CLASSES)
def test_a_peer_opens_what_another_peer_has_sent_compact(local, keys, new):
    sender = JWE(
        MESSAGE, header_of(alg="RSA-OAEP", enc="A128CBC-HS256", kid=keys.kids["RSA-OAEP"], cty="x")
    )
    sender.add_recipient(keys.jwks["RSA-OAEP"])
    body = {"jwe": sender.serialize(compact=True), "to": keys.to(new)}
    made = local.ok("/rewrap", body)["jwe"]
    assert opened(keys.jwks[new], made) == MESSAGE
    told = json.loads(unb64u(made.split(".")[0]))
    assert (told["alg"], told["cty"]) == (new, "x")


def header_of(**members: str) -> str:
    return json.dumps(members)


def test_parts_that_are_not_protected_stay_when_it_is_encrypted_anew(local, keys):
    asked = {"kid": keys.kids["A128KW"], "alg": "A128KW", "enc": "A128GCM", "data": ""}
    message = local.ok("/encrypt", asked)
    parts = {"unprotected": {"jku": "x", "a": 1}, "header": {"x5t": "x"}}
    made = local.ok("/rewrap", message | parts | {"to": keys.to("A256KW")})
    assert made["unprotected"] == {"a": 1}
    assert "header" not in made
    assert made["ciphertext"] == ""
    assert local.ok("/decrypt", made)["data"] == ""


@pytest.mark.parametrize("form", ["flattened", "general"])
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_whole_message_is_answered_as_one(local, keys, form, is_kept):
    message = keys.sent("A128KW")
    if not is_kept:
        asked = {"kid": keys.kids["A128KW"], "alg": "A128KW", "enc": "A128GCM", "data": "AAAA"}
        message = in_form(local.ok("/encrypt", asked), "general")
    if form == "flattened":
        message |= message.pop("recipients")[0]
    made = local.ok("/rewrap", {"jwe": message, "to": keys.to("A256KW")})
    assert made.keys() == {"jwe"}
    assert opened(keys.jwks["A256KW"], made["jwe"])
    assert (made["jwe"]["ciphertext"] == message["ciphertext"]) is is_kept


# --- What fails ---


def spoilt(text: str) -> str:
    octets = bytearray(unb64u(text))
    octets[-1] ^= 1
    return b64u(bytes(octets))


@pytest.mark.parametrize("old", CLASSES)
def test_whatever_is_wrong_it_fails_as_decrypt_does_call_by_call(local, chaos, keys, old):
    message = keys.sent(old)
    [one] = message["recipients"]
    other = keys.sent(old, enc="A256GCM")["recipients"][0]
    bad = {
        "an encrypted key": {"encrypted_key": spoilt(one["encrypted_key"])},
        "a CEK of another size": other,
        "a short one": {"encrypted_key": "AAAA"},
    }
    failures = [message | {"recipients": [one | its]} for its in bad.values()]
    failures += [message | {"tag": spoilt(message["tag"])}, message | {"aad": "AAAA"}]
    for failure in failures:
        found = []
        for path, more in (("/decrypt", {}), ("/rewrap", {"to": keys.to("A256KW")})):
            calls = chaos.count_own(*PERFORMING)
            started = time.monotonic()
            answer = local.post(path, failure | more)
            assert time.monotonic() - started >= FAILURE_SECONDS
            assert (answer.status, answer.content) == FAILED
            found.append(calls)
            chaos.heal()
        assert found[0] == found[1]


def test_what_is_encrypted_anew_fails_likewise(local, keys):
    for alg, kid in (("A128KW", keys.kids["A128KW"]), ("dir", keys.kids["dir"])):
        asked = {"kid": kid, "alg": alg, "enc": "A256GCM", "data": "AAAA"}
        message = local.ok("/encrypt", asked)
        bad = message | {"tag": spoilt(message["tag"]), "to": keys.to("A256KW")}
        answer = local.post("/rewrap", bad)
        assert (answer.status, answer.content) == FAILED


def test_a_wrap_that_does_not_open_is_no_answer(local, monkeypatch, keys):
    message = keys.sent("A128KW")
    wrap = hsm.operations.cek.TokenPath.wrap

    def wrong(*arguments: Any) -> Any:
        made = wrap(*arguments)
        return made._replace(encrypted_key=bytes(len(made.encrypted_key)))

    monkeypatch.setattr("hsm.operations.cek.TokenPath.wrap", wrong)
    assert local.post("/rewrap", message | {"to": keys.to("A256KW")}).status == 500


# --- What is refused ---

BAD_REQUEST = (400, "bad_request")
UNSUPPORTED = (422, "unsupported_algorithm")
NOT_FOUND = (404, "not_found")
DENIED = (403, "forbidden")
MISFIT = (422, "crypto_failure")
FLAT: Body = {
    "protected": header(enc="A128GCM", alg="A128KW", kid="x"),
    "encrypted_key": "AAAA",
    "iv": b64u(bytes(12)),
    "ciphertext": "",
    "tag": b64u(bytes(16)),
}
COMPACT = ".".join(FLAT[name] for name in ("protected", "encrypted_key", "iv", "ciphertext", "tag"))
TO: Body = {"to": {"kid": "x", "alg": "A128KW"}}
SEVERAL: Body = {
    "protected": header(enc="A128GCM"),
    "recipients": [{"header": {"alg": "A128KW", "kid": "x"}, "encrypted_key": "AAAA"}] * 2,
    **{name: FLAT[name] for name in ("iv", "ciphertext", "tag")},
}
NO_OBJECTS: Body = {"null": None, "text": "x", "an array": [], "a number": 5}
MALFORMED: Mapping[str, tuple[Body, tuple[int, str], str]] = {
    **{
        f"to that is {title}": (FLAT | {"to": value}, BAD_REQUEST, "'to'")
        for title, value in NO_OBJECTS.items()
    },
    "no to": (FLAT, BAD_REQUEST, "'to'"),
    **{
        f"to with {title}": (FLAT | {"to": TO["to"] | change}, answer, named)
        for title, change, answer, named in (
            ("no kid", {"kid": None}, BAD_REQUEST, "'to': Field 'kid'"),
            ("a kid that is no text", {"kid": 5}, BAD_REQUEST, "'to': Field 'kid'"),
            ("a jwk", {"kid": None, "jwk": {}}, BAD_REQUEST, "'to': Field 'kid'"),
            ("no alg", {"alg": None}, BAD_REQUEST, "'to': Field 'alg'"),
            ("an alg that is no text", {"alg": 5}, BAD_REQUEST, "'to': Field 'alg'"),
            ("an unknown alg", {"alg": "x"}, UNSUPPORTED, "'alg': 'x'"),
            ("no alg of encryption", {"alg": "ES256"}, UNSUPPORTED, "'alg': 'ES256'"),
            ("none", {"alg": "none"}, UNSUPPORTED, "'alg': 'none'"),
            ("an alg that is switched off", {"alg": "RSA1_5"}, UNSUPPORTED, "'RSA1_5'"),
        )
    },
    "no message": (TO, BAD_REQUEST, "'protected'"),
    **{f"no {name}": (TO | FLAT | {name: None}, BAD_REQUEST, f"'{name}'") for name in FLAT},
    "an iv of another length": (TO | FLAT | {"iv": "AAAA"}, BAD_REQUEST, "'iv'"),
    "a tag of another length": (TO | FLAT | {"tag": "AAAA"}, BAD_REQUEST, "'tag'"),
    "a header without kid": (
        TO | FLAT | {"protected": header(alg="A128KW", enc="A128GCM")},
        BAD_REQUEST,
        "'kid'",
    ),
    "a header with alg none": (
        TO | FLAT | {"protected": header(alg="none", enc="A128GCM", kid="x")},
        UNSUPPORTED,
        "'none'",
    ),
    "a header with crit": (
        TO | FLAT | {"protected": header(alg="A128KW", enc="A128GCM", kid="x", crit=["x"])},
        BAD_REQUEST,
        "'crit'",
    ),
    "a header with zip": (
        TO | FLAT | {"protected": header(alg="A128KW", enc="A128GCM", kid="x", zip="DEF")},
        BAD_REQUEST,
        "'zip'",
    ),
    "a member in two parts": (TO | FLAT | {"header": {"kid": "x"}}, BAD_REQUEST, "'kid'"),
    "a compact one of four parts": (TO | {"jwe": "a.b.c.d"}, BAD_REQUEST, "'jwe'"),
    "a jwe that is a number": (TO | {"jwe": 5}, BAD_REQUEST, "'jwe'"),
    "a jwe that is empty": (TO | {"jwe": {}}, BAD_REQUEST, "'protected'"),
    **{
        f"a {title} jwe and {name}": (TO | {"jwe": jwe, name: FLAT[name]}, BAD_REQUEST, name)
        for title, jwe in (("compact", COMPACT), ("whole", FLAT))
        for name in FLAT
    },
    "recipients and an encrypted key": (
        TO | SEVERAL | {"encrypted_key": "AAAA"},
        BAD_REQUEST,
        "'encrypted_key'",
    ),
    "no recipients": (TO | SEVERAL | {"recipients": []}, BAD_REQUEST, "'recipients'"),
}


@pytest.mark.parametrize("refused", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_before_anything_is_asked(local, application, chaos, refused):
    body, answer, named = refused
    with unasked(application, chaos):
        found = local.post("/rewrap", body)
    assert found.refusal == answer
    assert named in found.body["description"]


def test_what_does_not_fit_is_refused_before_anything_is_opened(local, chaos, keys):
    good = keys.sent("A128KW")
    both = keys.sent("A128KW", "A256KW")
    inactive = local.create(kty="oct", alg="A128KW")["kid"]
    local.request("PATCH", f"/keys/{inactive}", json={"state": "deactivated"})
    signer = local.create(kty="EC", crv="P-256", alg="ES256")["kid"]
    shared = {name: part for name, part in both.items() if name != "recipients"}
    protected = header(enc="A128GCM", alg="A128KW")
    in_protected = shared | {
        "protected": protected,
        "recipients": [
            {"header": {"kid": keys.kids["A128KW"]}, "encrypted_key": "AAAA"},
            {"header": {"kid": "theirs"}, "encrypted_key": "AAAA"},
        ],
    }
    of_old = {"kid": str(uuid4())}
    refusals: Mapping[str, tuple[Body, Body, tuple[int, str]]] = {
        "an unknown new key": (good, {"kid": str(uuid4()), "alg": "A256KW"}, NOT_FOUND),
        "an unknown alias": (good, {"kid": "nobody", "alg": "A256KW"}, NOT_FOUND),
        "an unknown old key": (good | of_old, keys.to("A256KW"), NOT_FOUND),
        "no recipient of ours": (
            good | {"recipients": [{"header": {"alg": "A128KW", "kid": "y"}}]},
            keys.to("A256KW"),
            NOT_FOUND,
        ),
        "another key beside": (good | {"kid": keys.kids["A192KW"]}, keys.to("A256KW"), BAD_REQUEST),
        "a new key for another alg": (good, {"kid": keys.kids["A128KW"], "alg": "A256KW"}, MISFIT),
        "a new key that is inactive": (good, {"kid": inactive, "alg": "A128KW"}, MISFIT),
        "a new key that signs": (good, {"kid": signer, "alg": "ECDH-ES+A128KW"}, MISFIT),
        "a new key for another enc": (good, {"kid": keys.kids["dir"], "alg": "dir"}, MISFIT),
        "several, to a shared key": (
            keys.sent("A128KW", "A256KW", enc="A256GCM"),
            {"kid": keys.kids["dir"], "alg": "dir"},
            MISFIT,
        ),
        "several, to an agreement": (both, {"kid": keys.kids["ECDH-ES"], "alg": "ECDH-ES"}, MISFIT),
        "several, with a protected alg": (in_protected, keys.to("A256KW"), MISFIT),
        "several, with a protected jwk": (
            both | {"protected": header(enc="A128GCM", jwk={})},
            keys.to("A256KW"),
            MISFIT,
        ),
    }
    calls = chaos.count_own(*NAMES)
    found = {
        title: local.post("/rewrap", message | {"to": new}).refusal
        for title, (message, new, _) in refusals.items()
    }
    assert found == {title: answer for title, (_, _, answer) in refusals.items()}
    assert sum(calls.values()) == 0


def test_it_takes_decrypt_on_the_old_key_and_encrypt_on_the_new(callers):
    alice, bob = callers.alice, callers.bob
    mine, other = (api.create(kty="oct", alg="A256KW")["kid"] for api in (alice, bob))
    asked = {"enc": "A256GCM", "serialization": "general", "data": "AAAA"}
    message = alice.ok("/encrypt", asked | {"recipients": [{"kid": mine, "alg": "A256KW"}]})
    body = message | {"to": {"kid": other, "alg": "A256KW"}}
    assert bob.post("/rewrap", body).refusal == NOT_FOUND  # no recipient is his
    assert bob.post("/rewrap", body | {"kid": mine}).refusal == DENIED
    for operations in ([], ["decrypt"]):
        grant(bob, other, "alice", operations)
        assert alice.post("/rewrap", body).refusal == DENIED
    grant(bob, other, "alice", ["encrypt"])
    made = alice.ok("/rewrap", body)
    assert bob.ok("/decrypt", made) == {"kid": other, "data": "AAAA"}
    assert alice.post("/decrypt", made).refusal == NOT_FOUND
    grant(alice, mine, "bob", ["decrypt"])
    assert bob.post("/rewrap", body).status == 200


def grant(owner: Api, kid: str, name: str, operations: list[str]) -> None:
    body = {"json": {"operations": operations}} if operations else {}
    owner.request("PUT" if operations else "DELETE", f"/keys/{kid}/grants/token:{name}", **body)


def test_the_keys_are_read_at_once(local, application, keys):
    for message in (keys.sent("A128KW"), keys.sent("A128KW", "RSA-OAEP")):
        with reads_of(service_of(application).registry) as reads:
            local.ok("/rewrap", message | {"to": keys.to("A256KW")})
        assert len(reads) == 1


def test_the_budget_of_the_new_key_is_counted(local, application, keys):
    spent = local.create(kty="oct", alg="A256GCMKW")["kid"]
    registry = service_of(application).registry
    registry.reserve_encryptions(spent, MOST_ENCRYPTIONS, most=MOST_ENCRYPTIONS)
    body = keys.sent("A128KW") | {"to": {"kid": spent, "alg": "A256GCMKW"}}
    assert local.post("/rewrap", body).refusal == MISFIT


def test_the_audit_log_names_both_keys_or_the_one_refused(local, application, keys):
    body = keys.sent("A128KW") | {"to": keys.to("A256KW")}
    local.ok("/rewrap", body)
    local.post("/rewrap", body | {"to": {"kid": keys.kids["A256KW"], "alg": "A192KW"}})
    log = service_of(application).config.audit_path
    assert log
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    made, misfit = [line for line in lines if line["endpoint"] == "encryption.rewrap"][-2:]
    both = [keys.kids["A128KW"], keys.kids["A256KW"]]
    assert (made["kid"], made["kids"], made["status"]) == (both[0], both, 200)
    assert (made["alg"], made["enc"]) == ("A128KW", "A128GCM")
    assert (misfit["kid"], misfit["alg"], misfit["status"]) == (both[1], "A192KW", 422)
    assert "kids" not in misfit
