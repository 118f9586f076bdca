"""The databases that a registry can be in, and what is peculiar to each."""
