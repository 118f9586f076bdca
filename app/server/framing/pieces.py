"""Bytes that come in pieces are put together once: a buffer that grows copies what it has."""

from typing import Final

_SMALL_BYTES: Final = 4096


class Pieces:
    """Collects a body whose length is known, and what comes after it."""

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self.held_bytes = 0

    def add(self, data: bytes) -> None:
        """Keep ``data`` as it is.

        Small pieces share a buffer: as objects they would take many times what they hold.
        """
        if self._pieces and len(data) < _SMALL_BYTES:
            if not isinstance(self._pieces[-1], bytearray):
                self._pieces.append(bytearray())
            self._pieces[-1] += data
        else:
            self._pieces.append(data)
        self.held_bytes += len(data)

    def take(self, size_bytes: int) -> bytes:
        """Return the first bytes, so many if there are, and keep the rest."""
        content = b"".join(self._pieces)
        taken, rest = content[:size_bytes], content[size_bytes:]
        self._pieces, self.held_bytes = [rest], len(rest)
        return taken
