"""Uses keys from many clients while everything that can fail does, at random."""
