"""Names of keys that tests make without a registry."""

from uuid import uuid4

from hsm import KeyRef, KeySpec


def new_ref(spec: KeySpec) -> KeyRef:
    """Name a key that is to be made."""
    return KeyRef(kid=uuid4(), spec=spec)
