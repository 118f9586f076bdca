"""How a key and its row come to be, and end, together."""
