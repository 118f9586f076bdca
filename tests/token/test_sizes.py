"""The longest plaintext that callers may send is tried; a token that takes less gets no more."""

import ctypes
import os
from functools import partial
from typing import Any

import pytest
from pkcs11 import Mechanism

import hsm
from app.config import MAX_BODY_BYTES, Config
from app.keys.capabilities import Capabilities
from hsm import Hsm
from hsm.life.sizes import most_bytes
from hsm.messages import Sealed
from tests.shared.drivers import result_of
from tests.shared.injector import Injector
from tests.shared.refs import new_ref
from tests.token.test_connection import AES, _injector, _outcome, _started

DATA_LEN_RANGE = 0x21
TAG_BYTES = 16
LIMIT = 16 * 1024
KEK = hsm.KeySpec(kty="oct", alg="A256KW", bits=256)
SIZES = (LIMIT, LIMIT + 1)
TOO_LONG = Sealed(bytes(12), bytes(LIMIT + 1), bytes(TAG_BYTES))
GCM = {name for name in hsm.CONTENT_ENCRYPTIONS if name.endswith("GCM")}


def end_at_16_kib(chaos: Injector) -> None:
    """Have AES-GCM refuse longer messages, as some tokens do."""
    in_gcm: set[int] = set()

    def begin(original: Any, *words: int) -> int:
        is_gcm = ctypes.c_ulong.from_address(words[1]).value == Mechanism.AES_GCM
        (in_gcm.add if is_gcm else in_gcm.discard)(words[0])
        return int(original(*words))

    def refusing(longest: int) -> Any:
        def end(original: Any, *words: int) -> int:
            answer = int(original(*words))
            is_over = words[0] in in_gcm and words[2] > longest
            return DATA_LEN_RANGE if is_over and words[3] else answer

        return end

    for verb, longest in (("Encrypt", LIMIT), ("Decrypt", LIMIT + TAG_BYTES)):
        chaos.replace(f"C_{verb}Init", begin)
        chaos.replace(f"C_{verb}", refusing(longest))


def seal_much() -> dict[str, Any]:
    """Use a token of 16 KiB, with as much as it takes and with a byte more."""
    end_at_16_kib(_injector())
    token, key, kek = _started(), new_ref(AES), new_ref(KEK)
    for made in (key, kek):
        token.generate(made)
    offers = token.offers()
    shown = Capabilities(config=Config.from_env(os.environ)).describe(offers)
    found = {
        "most": {enc: offers[enc].most_bytes for enc in hsm.CONTENT_ENCRYPTIONS},
        "shown": {
            enc: members.get("most_bytes") for enc, members in shown["content_encryptions"].items()
        },
        "direct": [_outcome(partial(_round_trip, token, key, "dir", size)) for size in SIZES],
        "wrapped": [_outcome(partial(_round_trip, token, kek, "A256KW", size)) for size in SIZES],
        "opened": _outcome(lambda: token.decrypt(key, "dir", "A256GCM", b"", TOO_LONG, b"aad")),
        "CBC": _outcome(lambda: _round_trip(token, kek, "A256KW", SIZES[1], "A256CBC-HS512")),
    }
    for made in (key, kek):
        token.destroy(made)
    return found


def _round_trip(token: Hsm, key: hsm.KeyRef, alg: str, size: int, enc: str = "A256GCM") -> None:
    plaintext = bytes(size)
    made = token.encrypt(key, alg, enc, plaintext, lambda _: b"aad")
    opened = token.decrypt(key, alg, enc, made.encrypted_key, made.sealed, b"aad")
    assert opened == plaintext


def test_a_token_of_16_kib_is_asked_for_no_more_and_says_so(environment):
    found = result_of(environment, seal_much, proves=True)
    limits = {enc: LIMIT if enc in GCM else None for enc in hsm.CONTENT_ENCRYPTIONS}
    assert found == {
        "most": limits,
        "shown": limits,
        "direct": ["done", "CryptoFailure"],
        "wrapped": ["done", "CryptoFailure"],
        "opened": "CryptoFailure",
        "CBC": "done",
    }


def test_a_token_that_takes_all_has_no_limit_of_its_own(token, config):
    assert {token.offers()[enc].most_bytes for enc in hsm.CONTENT_ENCRYPTIONS} == {None}
    assert config.hsm_settings.plaintext_bytes == MAX_BODY_BYTES * 3 // 4


@pytest.mark.parametrize(
    ("takes", "most"), [(1_572_864, None), (1_572_863, 1_048_576), (16_400, 16_384), (255, 0)]
)
def test_limits_below_what_callers_may_send_are_powers_of_two(takes, most):
    assert most_bytes(1_572_864, lambda size: None if size <= takes else "too long") == most
