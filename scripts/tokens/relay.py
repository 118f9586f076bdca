"""A network between clients of a token and the process that holds it: all takes its time.

    python -m scripts.tokens.relay NEAR FAR [SECONDS]

Listens on the socket NEAR, and carries octets to FAR and back.
"""

import socket
import socketserver
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

ONE_WAY_SECONDS: Final = 0.001


class Relay(socketserver.ThreadingUnixStreamServer):
    """What carries octets from the socket ``near`` to the socket ``far``, each way in so long."""

    daemon_threads = True

    def __init__(self, near: Path, far: Path, one_way_seconds: float = ONE_WAY_SECONDS) -> None:
        super().__init__(str(near), Cable)
        self.far = far
        self.one_way_seconds = one_way_seconds


class Cable(socketserver.BaseRequestHandler):
    """One connection; it ends on both sides if it ends on one."""

    server: Relay

    def handle(self) -> None:
        """Carry octets both ways."""
        with socket.socket(socket.AF_UNIX) as far, suppress(OSError):
            far.connect(str(self.server.far))
            back = threading.Thread(target=self._carry, args=(far, self.request), daemon=True)
            back.start()
            self._carry(self.request, far)
            back.join()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while octets := near.recv(65_536):
                time.sleep(self.server.one_way_seconds)
                far.sendall(octets)
        for end in (near, far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Carry until this process ends."""
    near, far, *seconds = sys.argv[1:]
    with Relay(Path(near), Path(far), *map(float, seconds)) as relay:
        relay.serve_forever()


if __name__ == "__main__":
    main()
