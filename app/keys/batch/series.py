"""Messages of one key that differ in their data alone: what they have in common is done once.

The key is found, the right checked and the header written for all of them, by what does it for one.
Each function returns what was made of the first of ``bodies``, as many as fit into one turn of a
session. One that fails ends the series and raises nothing: used alone, the key is asked again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import hsm
from app.jose import encoding
from app.keys.access import (
    find,
    find_to_encrypt,
    find_to_mac,
    find_to_sign,
    require_existing,
    require_fit,
    require_permitted_verification,
)
from app.keys.batch.one_at_a_time import ONE_AT_A_TIME
from app.keys.budget import is_counted
from app.keys.headers import head_of, signing_input_of
from app.keys.use import KeyUse
from app.registry import Key
from app.rights import Principal, Right

Body = Mapping[str, Any]
Made = list[dict[str, Any]]

_OF_HEADER: Final = ("aad", "apu", "apv", "media_types")


def encrypt_all(use: KeyUse, principal: Principal, bodies: Sequence[Body]) -> Made:
    """Return JWEs that are encrypted directly; see ``KeyUse.encrypt``."""
    first, enc = bodies[0], bodies[0]["enc"]
    key = find_to_encrypt(use.rows, use.hsm, principal, first["kid"], enc)
    head = head_of(key, hsm.DIRECT, enc, **{name: first[name] for name in _OF_HEADER})
    aad = head.additional_data(hsm.Agreement())
    jwe = head.jwe(hsm.Encrypted(b"", hsm.Sealed(b"", b"", b"")))  # but for those three

    def counted() -> Iterator[tuple[Any, ...]]:
        is_each_counted = is_counted(hsm.DIRECT, enc)
        for body in bodies:
            if is_each_counted:
                use.budget.spend(key.kid)
            yield body["data"], lambda _agreement: aad

    return _made(use, "encrypt", key, enc, counted(), lambda made: jwe | made.sealed._asdict())


def decrypt_all(use: KeyUse, principal: Principal, bodies: Sequence[Body]) -> Made:
    """Return plaintexts of JWEs that were encrypted directly; see ``KeyUse.decrypt``."""
    kid, enc = bodies[0]["protected"].kid, bodies[0]["protected"].enc
    key = find(use.rows, principal, kid, Right.DECRYPT)
    require_fit(use.hsm, key, enc)
    data = (
        (
            hsm.Sealed(body["iv"], body["ciphertext"], body["tag"]),
            encoding.additional_data(body["protected"].protected, body["aad"]),
        )
        for body in bodies
    )
    return _made(use, "decrypt", key, enc, data, lambda made: {"kid": kid, "data": made})


def sign_all(use: KeyUse, principal: Principal, bodies: Sequence[Body]) -> Made:
    """Return detached JWSs; see ``KeyUse.sign``."""
    first, alg = bodies[0], bodies[0]["alg"]
    key = find_to_sign(use.rows, principal, first["kid"], alg)
    protected = use.jws_header(key, alg, first["media_types"], None)
    inputs = ((signing_input_of(protected, body["data"], None),) for body in bodies)
    return _made(
        *(use, "sign", key, alg, inputs),
        lambda made: {"protected": protected, "signature": made},
    )


def verify_all(use: KeyUse, principal: Principal, bodies: Sequence[Body]) -> Made:
    """Tell which signatures are valid; see ``KeyUse.verify``."""
    kid, alg = bodies[0]["protected"].kid, bodies[0]["protected"].alg
    is_mac = alg in hsm.MACS
    key = find(use.rows, principal, kid, Right.MAC if is_mac else Right.VERIFY)
    require_permitted_verification(key, alg)
    data = ((_signing_input(body), body["signature"]) for body in bodies)
    verb = "verify_mac" if is_mac else "verify"
    made = _made(use, verb, key, alg, data, lambda valid: {"kid": kid, "valid": valid})
    if not all(one["valid"] for one in made):
        require_existing(use.registry, key)
    return made


def mac_all(use: KeyUse, principal: Principal, bodies: Sequence[Body]) -> Made:
    """Return MACs, each with the name of the key; see ``KeyUse.mac``."""
    kid, alg = bodies[0]["kid"], bodies[0]["alg"]
    key = find_to_mac(use.rows, principal, kid, alg)
    data = ((body["data"],) for body in bodies)
    return _made(use, "mac", key, alg, data, lambda made: {"kid": kid, "mac": made})


def _signing_input(body: Body) -> bytes:
    header = body["protected"]
    return encoding.signing_input(header.protected, body["data"], is_encoded=header.is_encoded)


def _made(  # noqa: PLR0913, PLR0917  # what each is done with, and what is told of it
    use: KeyUse,
    verb: str,
    key: Key,
    name: str,
    data: Iterable[tuple[Any, ...]],
    told: Callable[[Any], dict[str, Any]],
) -> Made:
    done: list[Any] = []
    with suppress(Exception), ONE_AT_A_TIME.measured((verb, name), done):
        use.hsm.each(verb, key.ref, name, data, done)
    if done:
        use.registry.uses.note(key.kid)
    return [told(one) for one in done]
