"""Messages for several keys, in General JSON Serialization (RFC 7515 §7.2.1, RFC 7516 §7.2.1)."""
