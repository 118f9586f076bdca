"""Bodies of the operations on messages, and the headers in them."""
