"""``jose-hsm kek``: the key-encryption key under which the registry keeps keys wrapped."""
