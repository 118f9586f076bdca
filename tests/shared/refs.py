"""Names of keys that tests make without a registry."""

from uuid import uuid4

from hsm import KeyRef, KeySpec, Storage


def new_ref(spec: KeySpec, storage: Storage = Storage.TOKEN) -> KeyRef:
    """Name a key that is to be made."""
    return KeyRef(kid=uuid4(), spec=spec, storage=storage)
