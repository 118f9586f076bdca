"""Where requests end: their header section, and a chunked body."""
