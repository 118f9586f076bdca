"""Which keys the token imports wrapped: for programs, in the capabilities of the service."""

from collections.abc import Iterator, Mapping
from typing import Any

import hsm
from hsm import Hsm, KeySpec


def wrapped_imports(token: Hsm) -> list[dict[str, Any]]:
    """Return each type of key, on each curve, and whether it is imported for these algorithms.

    They are those that are offered. Who asks a token first waits until it has been tried.
    """
    algs: dict[tuple[str, str | None, str | None], list[str]] = {}
    for spec in _specs(token.offers()):
        reason = token.imports.refusal(spec)
        algs.setdefault((spec.kty, spec.crv, reason), []).append(str(spec.alg))
    return [
        {"kty": kty}
        | ({"crv": crv} if crv else {})
        | {"algs": names, "offered": reason is None}
        | ({"reason": reason} if reason else {})
        for (kty, crv, reason), names in algs.items()
    ]


def _specs(offers: Mapping[str, hsm.Offer]) -> Iterator[KeySpec]:
    """Give a key of each algorithm that is offered, on each of its curves."""
    for row in hsm.ALGORITHMS.values():
        for kind, curve in row.keys:
            crv = curve.crv if curve else None
            if offers[row.name].refusal(crv) is None:
                yield from (KeySpec(kty=kty, alg=row.name, crv=crv) for kty in kind.ktys)
