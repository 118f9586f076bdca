"""What a key does, asked of the service where nobody has typed it."""

from typing import Any, Final

from app.client.command import given, resource_of
from app.client.service import Service
from app.terminal.failure import CommandFailed

ENC: Final = "A256GCM"
"""How content is encrypted where neither key nor caller says it."""


def alg_of(service: Service, key: str, *, in_keyset: bool) -> str:
    """Return the ``alg`` of a key; raise ``CommandFailed`` if it was made without one."""
    return str(_with_alg(service, key, in_keyset=in_keyset)["alg"])


def encryption_of(service: Service, key: str, *, in_keyset: bool) -> dict[str, str]:
    """Return ``alg`` and ``enc``: a secret key that wraps no others encrypts the content itself.

    Raises ``CommandFailed`` if the key was made without an ``alg``.
    """
    described = _with_alg(service, key, in_keyset=in_keyset)
    alg = str(described["alg"])
    is_direct = described["kty"] == "oct" and not alg.endswith("KW")
    return {"alg": "dir", "enc": alg} if is_direct else {"alg": alg, "enc": ENC}


def _with_alg(service: Service, key: str, *, in_keyset: bool) -> dict[str, Any]:
    described: dict[str, Any] = service.get(resource_of(in_keyset=in_keyset), key)
    if not described.get("alg"):
        raise CommandFailed("the key does more than one algorithm: add --alg")
    return described


def kind_of(
    service: Service, *, alg: str | None, kty: str | None, crv: str | None
) -> dict[str, str]:
    """Return ``kty`` and ``crv`` as they are typed, or as they follow from ``alg``.

    Raises ``CommandFailed`` where keys that do ``alg`` are of several types, or there are none.
    """
    if kty:
        return given(kty=kty, crv=crv)
    if not alg:
        raise CommandFailed("which kind of key? Say --alg, or --kty")
    return _only(_kinds(service.get("capabilities"), alg), alg) | given(crv=crv)


def _kinds(offered: dict[str, Any], alg: str) -> list[dict[str, str]]:
    if alg in offered["content_encryptions"]:
        return [{"kty": "oct"}]
    return [
        kind
        for section in ("signatures", "macs", "key_managements")
        for kind in offered[section].get(alg, {}).get("keys", ())
    ]


def _only(kinds: list[dict[str, str]], alg: str) -> dict[str, str]:
    """Return the one kind, without a curve where the service chooses between several."""
    if len({kind["kty"] for kind in kinds}) != 1:
        raise CommandFailed(f"which kind of key is to do {alg}? Say --kty and --crv")
    return kinds[0] if len(kinds) == 1 else {"kty": kinds[0]["kty"]}
