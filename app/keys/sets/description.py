"""What callers are told of key sets."""

from collections.abc import Sequence
from typing import Any

from app.duration import write_duration
from app.registry import KeySet, Policy, Version


def describe_set(keyset: KeySet, tags: Sequence[str]) -> dict[str, Any]:
    """Return what those are told who may read a key set."""
    spec = keyset.spec
    optional = {"alg": spec.alg, "crv": spec.crv, "bits": spec.bits if spec.kty == "RSA" else None}
    after = keyset.destroy_after
    return {
        "name": keyset.name,
        "kty": spec.kty,
        **{name: value for name, value in optional.items() if value is not None},
        **({"digest": True} if spec.signs_digests else {}),
        **({} if after is None else {"destroy_after": write_duration(after)}),
        "owner": keyset.owner,
        "tags": list(tags),
        "published": keyset.is_published,
        "rotation": None if keyset.policy is None else _rotation(keyset.policy),
        "current": str(keyset.current_kid),
        "next": str(keyset.next_kid) if keyset.next_kid else None,
        "rotates": keyset.rotates_at,
        "created": keyset.created_at,
        "versions": [_version(version) for version in keyset.versions],
    }


def _rotation(policy: Policy) -> dict[str, str]:
    return {
        "every": write_duration(policy.every),
        "publish_ahead": write_duration(policy.publish_ahead),
        "retain": write_duration(policy.retain),
    }


def _version(version: Version) -> dict[str, Any]:
    return {
        "kid": str(version.kid),
        "version": version.number,
        "state": version.state,
        "created": version.created_at,
        "published": version.published_at,
        "current": version.current_at,
        "retires": version.retires_at,
    }
