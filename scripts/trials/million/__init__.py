"""Keys that the registry keeps, by the hundred thousand, and what they cost."""
