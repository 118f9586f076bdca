"""Rows of many keys at once: new ones, those that are encrypted anew, and how many there are."""
