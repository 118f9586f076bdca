"""The operations of JOSE on keys that are in the token."""
