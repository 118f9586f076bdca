"""How one speaks to a token that may be in trouble: sessions, handles, faults, attributes."""
