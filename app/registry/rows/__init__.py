"""Rows of many keys at once: new ones, and those that are encrypted anew."""
