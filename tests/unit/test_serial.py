"""Tokens that have one serial number are told from one another all the same."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pkcs11 import Mechanism

from hsm.cryptoki.module import serial_of
from hsm.life.proof_cache import ProofCache

SHARED = [b"0000000000000000", b"\0" * 16, b"0", b"", b"123"]
"""Of NSS and tpm2-pkcs11, of none, and of openCryptoki."""


def token(serial: bytes, label: str = "label") -> Any:
    """What a token says of itself."""
    slot = SimpleNamespace(get_mechanisms=lambda: {Mechanism.AES_GCM})
    return SimpleNamespace(
        serial=serial,
        label=label,
        manufacturer_id="maker",
        model="model",
        hardware_version=(1, 0),
        firmware_version=(1, 0),
        slot=slot,
    )


def test_a_serial_number_tells_tokens_of_one_label_from_each_other():
    assert serial_of(token(b"a0"), None) != serial_of(token(b"a1"), None)


@pytest.mark.parametrize("serial", SHARED)
def test_it_goes_with_the_label_and_the_parameters_of_the_library(serial):
    known = [
        serial_of(token(serial), None),
        serial_of(token(serial, "another"), None),
        serial_of(token(serial), "configdir='one'"),
        serial_of(token(serial), "configdir='two'"),
    ]
    assert len(set(known)) == len(known)
    assert known[2] == serial_of(token(serial), "configdir='one'")


def trials(directory: Path, parameters: str) -> int:
    """How many trials a process makes on a token with these parameters."""
    made: list[None] = []
    proof_cache = ProofCache(directory, token(SHARED[0]), parameters)
    with proof_cache.shared(believe=True):
        proof_cache.of("RS256", lambda: made.append(None))
    return len(made)


def test_what_one_of_such_tokens_can_do_is_not_believed_of_another(tmp_path):
    asked = ["configdir='one'", "configdir='one'", "configdir='two'"]
    assert [trials(tmp_path, parameters) for parameters in asked] == [1, 0, 1]
