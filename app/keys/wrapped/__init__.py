"""Keys that come in wrapped: the keys to wrap for, and the imports."""
