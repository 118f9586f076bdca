"""Keys as JWKs: what is checked, read and written of each."""
