"""What a key can be made for here, as a list to choose from."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from app.rights import Right

Members = Mapping[str, Any]


class Purpose(NamedTuple):
    """An algorithm with a kind of key that performs it: ``members`` are those of the request."""

    title: str
    members: dict[str, Any]


class Group(NamedTuple):
    """Purposes of one sort."""

    title: str
    purposes: list[Purpose]


def groups(capabilities: Members) -> list[Group]:
    """Return all that are offered."""
    return [
        Group("Sign", _purposes(capabilities["signatures"])),
        Group("Compute MACs", _purposes(capabilities["macs"])),
        Group("Encrypt data", _purposes(capabilities["content_encryptions"])),
        Group("Encrypt or agree on the keys of messages", _purposes(_agreed(capabilities))),
    ]


def _agreed(capabilities: Members) -> Members:
    """Return the key managements that have a key of their own, which ``dir`` has not."""
    rows = capabilities["key_managements"]
    return {name: rows[name] for name in rows if name != "dir"}


def _purposes(rows: Members) -> list[Purpose]:
    return [one for alg, row in rows.items() if _is_offered(row) for one in _of(alg, row)]


def _is_offered(row: Members) -> bool:
    """Tell whether an algorithm is offered, for one operation, or with one ``enc``."""
    of_encs = row.get("enc", {"": row}).values()
    operations = (one.get("operations", {Right.ENCRYPT: one}) for one in of_encs)
    return any(status["offered"] for each in operations for status in each.values())


def _of(alg: str, row: Members) -> Iterator[Purpose]:
    for key in row.get("keys", [{"kty": "oct"}]):
        if key.get("crv") not in row.get("refused_crvs", {}):
            for bits in row["bits"]["generated"] if key["kty"] == "RSA" else [None]:
                members = {"alg": alg, **key, **({} if bits is None else {"bits": bits})}
                named = filter(None, (key["kty"], key.get("crv"), bits))
                yield Purpose(f"{alg} · {' '.join(map(str, named))}", members)
