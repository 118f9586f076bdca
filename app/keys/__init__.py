"""What principals do with keys: the use cases, their rights and their limits."""
