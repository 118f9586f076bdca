"""What holds for any input: codecs, headers, bodies, round trips, and flipped bits."""

import base64
import json
import math
import re
import string
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import hsm
from app.jose import encoding, strict_json
from tests.shared.api import Answer, Api, b64u, header, unb64u
from tests.shared.examples import examples
from tests.shared.sealing import CEK_BYTES, ciphertext_bytes

ALPHABET: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
FOREIGN: Final = "=+/ \n\t\0.%é"

quickly = settings(
    deadline=None,
    max_examples=examples(150),
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
randomly = settings(quickly, max_examples=examples(60))

TRANSPORTS: Final = (
    *("RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-512", *hsm.KEY_WRAPPINGS, "A192GCMKW"),
    *("ECDH-ES", "ECDH-ES+A256KW"),
)
FLIPPED_ENCS: Final = ("A128GCM", "A128CBC-HS256")

octets = st.binary(max_size=200)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


# --- base64url ---


def is_canonical(text: str) -> bool:
    """Tell by RFC 4648 §3.5 and §5 whether ``text`` is base64url without padding."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text, re.ASCII):
        return False
    unused_bits = {0: 0, 2: 4, 3: 2}.get(len(text) % 4)
    if unused_bits is None:
        return False
    return not text or ALPHABET.index(text[-1]) % (1 << unused_bits) == 0


@given(
    st.text(ALPHABET, max_size=12)
    | st.text(ALPHABET + FOREIGN, max_size=12)
    | st.text(max_size=12)
    | octets.map(b64u)
    | octets.map(lambda value: base64.urlsafe_b64encode(value).decode())
)
@example("")
@example("A")
@example("AB")
@example("AAB")
@example("AA\n")
@example("AAAA\n")
@example("====")
@settings(quickly, max_examples=examples(1000))
def test_base64url_is_decoded_exactly_if_it_is_canonical(text: str) -> None:
    if is_canonical(text):
        assert encoding.encode(encoding.decode(text)) == text
    else:
        with pytest.raises(ValueError):  # noqa: PT011  # of whatever kind
            encoding.decode(text)


@given(octets)
@quickly
def test_encoding_is_canonical_and_reversible(value: bytes) -> None:
    assert is_canonical(encoding.encode(value))
    assert encoding.decode(encoding.encode(value)) == value == unb64u(encoding.encode(value))


@given(st.text(ALPHABET, min_size=1, max_size=40).filter(is_canonical), st.data())
@quickly
def test_no_other_text_decodes_to_the_same_bytes(text: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(text)))
    foreign = data.draw(st.sampled_from(FOREIGN))
    with pytest.raises(ValueError):  # noqa: PT011  # of whatever kind
        encoding.decode(text[:position] + foreign + text[position:])


# --- strict JSON ---


class Pairs(list[tuple[str, Any]]):
    """A JSON object with all the members that were written."""


def is_strict(value: Any) -> bool:
    """Tell whether what ``json`` made of a text has nothing forbidden in it."""
    if isinstance(value, Pairs):
        names = [name for name, _ in value]
        return len(set(names)) == len(names) and all(
            is_strict(name) and is_strict(inner) for name, inner in value
        )
    if isinstance(value, list):
        return all(map(is_strict, value))
    if isinstance(value, str):
        return not any(0xD800 <= ord(character) < 0xE000 for character in value)
    return not (isinstance(value, float) and not math.isfinite(value))


def reference(text: bytes) -> bool:
    """Tell whether ``text`` is a JSON object without what the wire contract forbids."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=Pairs)
    except ValueError:
        return False
    return isinstance(value, Pairs) and is_strict(value)


def agrees(text: bytes) -> None:
    if reference(text):
        assert strict_json.loads(text) == json.loads(text)
    else:
        with pytest.raises(ValueError):  # noqa: PT011  # of whatever kind
            strict_json.loads(text)


FRAGMENTS: Final = (
    *("{", "}", "[", "]", ":", ",", " ", "\n", '"', '"a"', '"b"', '"a":1', '"a":', '{"a":1}'),
    *("1", "-0", "1.5", "1e999", "-1e999", "1e308", "NaN", "Infinity", "-Infinity", "true", "nul"),
    *(r'"\ud800"', r'"\ud83d\ude00"', r'"\u0061"', '"é"', "\ufeff", "\0", r'"\\ud800"', "'a'"),
)


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
@settings(quickly, max_examples=examples(1000))
def test_strict_json_is_json_without_the_forbidden_in_any_text(text: str) -> None:
    agrees(text.encode())
    agrees(b'{"x":' + text.encode() + b"}")


@given(st.binary(max_size=30) | st.text(max_size=30).map(lambda text: text.encode("utf-16")))
@quickly
def test_strict_json_is_json_without_the_forbidden_in_any_bytes(text: bytes) -> None:
    agrees(text)
    agrees(b'{"' + text + b'":1}')


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=6), st.booleans())
@quickly
def test_strict_json_reads_what_json_writes(members: dict[str, Any], is_ascii: bool) -> None:
    text = json.dumps(members, ensure_ascii=is_ascii).encode()
    assert strict_json.loads(text) == json.loads(text) == members


FORBIDDEN: Final = (
    *("NaN", "Infinity", "-Infinity", "1e999", r'"\udfff"', r'{"\ud800":1}'),
    *('{"a":1,"a":1}', r'{"a":1,"\u0061":2}', "'a'", "01", "[1,]"),
)


@given(json_values, st.sampled_from(FORBIDDEN), st.data())
@quickly
def test_strict_json_finds_the_forbidden_at_any_depth(
    value: Any, forbidden: str, data: st.DataObject
) -> None:
    text = forbidden
    for _ in range(data.draw(st.integers(0, 6))):
        sibling = json.dumps(value)
        text = data.draw(st.sampled_from((f"[{sibling},{text}]", f'{{"x":{sibling},"y":{text}}}')))
    with pytest.raises(ValueError):  # noqa: PT011  # of whatever kind
        strict_json.loads(f'{{"x":{text}}}'.encode())


# --- the service ---


@pytest.fixture(scope="module")
def kids(local: Api) -> dict[str, str]:
    keys = {alg: {"kty": "oct", "alg": alg} for alg in (*CEK_BYTES, "HS256")}
    keys |= {alg: {"kty": "oct", "alg": alg} for alg in (*hsm.KEY_WRAPPINGS, "A192GCMKW")}
    keys |= {
        "RSA-OAEP": {"kty": "RSA", "alg": "RSA-OAEP"},
        "RSA-OAEP-256": {"kty": "RSA", "alg": "RSA-OAEP-256"},
        "RSA-OAEP-512": {"kty": "RSA", "alg": "RSA-OAEP-512"},
        "ECDH-ES": {"kty": "EC", "crv": "P-384", "alg": "ECDH-ES"},
        "ECDH-ES+A256KW": {"kty": "OKP", "crv": "X25519", "alg": "ECDH-ES+A256KW"},
        "ES256": {"kty": "EC", "crv": "P-256", "alg": "ES256"},
        "EdDSA": {"kty": "OKP", "alg": "EdDSA"},
    }
    return {name: local.create(**members)["kid"] for name, members in keys.items()}


@given(
    st.binary(max_size=2000),
    st.none() | octets,
    st.sampled_from(sorted(CEK_BYTES)),
)
@example(b"", b"", "A256GCM")
@example(bytes(16), b"", "A256CBC-HS512")
@example(b"", None, "A128GCM")
@randomly
def test_any_bytes_survive_direct_encryption(
    local: Api, kids: dict[str, str], plaintext: bytes, aad: bytes | None, enc: str
) -> None:
    body = {"kid": kids[enc], "alg": "dir", "enc": enc, "data": b64u(plaintext)}
    jwe = local.ok("/encrypt", body if aad is None else body | {"aad": b64u(aad)})
    assert jwe.get("aad") == (None if aad is None else b64u(aad))
    assert len(unb64u(jwe["ciphertext"])) == ciphertext_bytes(enc, len(plaintext))
    assert local.ok("/decrypt", jwe) == {"kid": kids[enc], "data": b64u(plaintext)}


@given(
    octets,
    st.none() | octets,
    st.sampled_from(TRANSPORTS),
    st.sampled_from(sorted(CEK_BYTES)),
)
@randomly
def test_any_bytes_survive_with_a_cek_of_their_own(  # noqa: PLR0913, PLR0917  # what is drawn
    local: Api, kids: dict[str, str], plaintext: bytes, aad: bytes | None, alg: str, enc: str
) -> None:
    body = {"kid": kids[alg], "alg": alg, "enc": enc, "data": b64u(plaintext)}
    body |= {} if aad is None else {"aad": b64u(aad)}
    if alg.startswith("ECDH-ES"):
        body |= {"apu": b64u(plaintext), "apv": b64u(aad or b"Bob")}
    jwe = local.ok("/encrypt", body)
    assert local.ok("/decrypt", jwe) == {"kid": kids[alg], "data": b64u(plaintext)}


@given(octets, octets, st.sampled_from(["ES256", "EdDSA"]))
@example(b"", b"\0", "ES256")
@randomly
def test_any_bytes_are_signed_and_no_others(
    local: Api, kids: dict[str, str], message: bytes, other: bytes, alg: str
) -> None:
    jws = local.ok("/sign", {"kid": kids[alg], "alg": alg, "data": b64u(message)})
    assert local.ok("/verify", jws | {"data": b64u(message)})["valid"] is True
    assert local.ok("/verify", jws | {"data": b64u(other)})["valid"] is (message == other)


@given(octets, octets)
@randomly
def test_any_bytes_have_a_mac_of_their_own(
    local: Api, kids: dict[str, str], message: bytes, other: bytes
) -> None:
    body = {"kid": kids["HS256"], "alg": "HS256", "data": b64u(message)}
    mac = local.ok("/mac", body)["mac"]
    assert local.ok("/mac", body | {"mac": mac})["valid"] is True
    others = local.ok("/mac", body | {"mac": mac, "data": b64u(other)})
    assert others["valid"] is (message == other)
    assert local.ok("/mac", body | {"mac": b64u(other)})["valid"] is False


@given(st.data())
@settings(randomly, max_examples=examples(120))
def test_a_flipped_bit_anywhere_never_decrypts(
    local: Api, jwes: dict[str, Any], data: st.DataObject
) -> None:
    jwe = jwes[data.draw(st.sampled_from(sorted(jwes)))]
    members = [name for name in jwe if jwe[name]]
    name = data.draw(st.sampled_from(members))
    value = bytearray(unb64u(jwe[name]))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    answer = local.post("/decrypt", jwe | {name: b64u(bytes(value))})
    assert answer.status in (400, 404, 422)
    if name != "protected":
        assert answer.refusal == (422, "decryption_failed")


@given(st.data())
@settings(randomly, max_examples=examples(120))
def test_a_changed_character_anywhere_never_decrypts(
    local: Api, jwes: dict[str, Any], data: st.DataObject
) -> None:
    jwe = jwes[data.draw(st.sampled_from(sorted(jwes)))]
    name = data.draw(st.sampled_from([name for name in jwe if jwe[name]]))
    text = jwe[name]
    position = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.sampled_from(ALPHABET + FOREIGN))
    changed = text[:position] + character + text[position + 1 :]
    answer = local.post("/decrypt", jwe | {name: changed})
    assert (answer.status == 200) is (changed == text)
    assert answer.status in (200, 400, 404, 422)


@pytest.fixture(scope="module")
def jwes(local: Api, kids: dict[str, str]) -> dict[str, Any]:
    data = {"data": b64u("plaintext"), "aad": b64u("context")}
    named = {enc: {"kid": kids[enc], "alg": "dir", "enc": enc} for enc in FLIPPED_ENCS}
    named |= {alg: {"kid": kids[alg], "alg": alg, "enc": FLIPPED_ENCS[0]} for alg in TRANSPORTS}
    return {name: local.ok("/encrypt", names | data) for name, names in named.items()}


def is_a_clean_answer(answer: Answer) -> bool:
    """Tell whether it is one of the documented statuses; ``Api`` has checked its form."""
    return answer.status in (200, 400, 404, 422)


ALGORITHM_NAMES: Final = (
    *("dir", "RSA-OAEP", "RSA-OAEP-256", "A128GCM", "A192GCM", "A256GCM", "HS256", "HS512"),
    *("RS256", "PS512", "ES256", "ES512", "EdDSA", "none", "", "MLDSA44"),
)
header_members = st.dictionaries(
    st.sampled_from(["kid", "alg", "enc", "crit", "zip", "b64", "jku", "p2c"])
    | st.text(max_size=5),
    json_values | st.sampled_from(ALGORITHM_NAMES),
    max_size=6,
)


@given(header_members, st.data())
@settings(randomly, max_examples=examples(120))
def test_no_header_is_an_error_of_ours(
    local: Api, kids: dict[str, str], members: dict[str, Any], data: st.DataObject
) -> None:
    for name, values in {
        "kid": list(kids.values()),
        "alg": ALGORITHM_NAMES,
        "enc": ALGORITHM_NAMES,
    }.items():
        if data.draw(st.booleans()):
            members |= {name: data.draw(st.sampled_from(values))}
    protected = b64u(json.dumps(members))
    jwe = {"protected": protected, "iv": b64u(bytes(12)), "ciphertext": "", "tag": b64u(bytes(16))}
    encrypted_key = data.draw(st.sampled_from(["", "AA", b64u(bytes(256))]))
    jwe |= {"encrypted_key": encrypted_key}
    jws = {"protected": protected, "data": "", "signature": data.draw(st.sampled_from(["", "AA"]))}
    assert is_a_clean_answer(local.post("/verify", jws))
    for path in ("/decrypt", "/keys/unwrap"):
        answer = local.post(path, jwe)
        assert is_a_clean_answer(answer)
        assert answer.status != 200


@given(octets)
@randomly
def test_no_bytes_in_place_of_a_header_are_an_error_of_ours(local: Api, value: bytes) -> None:
    jwe = {"protected": b64u(value), "iv": "", "ciphertext": "", "tag": "", "encrypted_key": "AA"}
    jws = {"protected": b64u(value), "data": "", "signature": ""}
    for path, body in {"/decrypt": jwe, "/keys/unwrap": jwe, "/verify": jws}.items():
        assert local.post(path, body).refusal == (400, "bad_request")


PATHS: Final = ("/keys", "/keys/unwrap", "/encrypt", "/decrypt", "/sign", "/verify", "/mac")
MEMBERS: Final = (
    *("kid", "alg", "enc", "data", "aad", "mac", "protected", "encrypted_key", "iv", "ciphertext"),
    *("tag", "signature", "kty", "crv", "k", "n", "e", "d", "p", "q", "dp", "dq", "qi", "x", "y"),
    "pub",
    "priv",
)
VALUES: Final = (
    *ALGORITHM_NAMES,
    *("oct", "EC", "OKP", "AKP", "P-256", "P-384", "P-521", "Ed25519", "AQAB", "A", "\0"),
    *(b64u(bytes(size)) for size in (12, 16, 32, 256)),
    header(kid="x", alg="dir", enc="A256GCM"),
    header(kid="x", alg="ES256"),
)


@given(
    st.sampled_from(PATHS),
    st.dictionaries(
        st.sampled_from(MEMBERS) | st.text(max_size=4), st.sampled_from(VALUES) | json_values
    ),
)
@settings(randomly, max_examples=examples(250))
def test_no_json_body_is_an_error_of_ours(local: Api, path: str, body: dict[str, Any]) -> None:
    assert is_a_clean_answer(local.post(path, body))


@given(st.sampled_from(PATHS), json_values.filter(lambda value: not isinstance(value, dict)))
@settings(randomly, max_examples=examples(100))
def test_only_an_object_is_a_body(local: Api, path: str, body: Any) -> None:
    headers = {"Content-Type": "application/json"}
    answer = local.request("POST", path, data=json.dumps(body), headers=headers)
    assert answer.refusal == (400, "bad_request")


@given(st.data())
@settings(randomly, max_examples=examples(200))
def test_no_member_can_be_made_an_error_of_ours(
    local: Api, bodies: dict[str, Any], data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(sorted(bodies)))
    name = data.draw(st.sampled_from(sorted(bodies[path])))
    value = data.draw(st.sampled_from(VALUES) | octets.map(b64u) | json_values)
    assert is_a_clean_answer(local.post(path, bodies[path] | {name: value}))


@pytest.fixture(scope="module")
def bodies(local: Api, kids: dict[str, str], jwes: dict[str, Any]) -> dict[str, Any]:
    sign = {"kid": kids["ES256"], "alg": "ES256", "data": "AAAA"}
    return {
        "/keys": {"kty": "EC", "alg": "ES256", "crv": "P-256", "d": b64u(b"\1" * 32)},
        "/keys/unwrap": jwes["RSA-OAEP"],
        "/encrypt": {"kid": kids["RSA-OAEP"], "alg": "RSA-OAEP", "enc": "A128GCM", "data": ""},
        "/decrypt": jwes["A128GCM"],
        "/sign": sign,
        "/verify": local.ok("/sign", sign) | {"data": "AAAA"},
        "/mac": {"kid": kids["HS256"], "alg": "HS256", "data": "", "mac": b64u(bytes(32))},
    }
