"""The interface by which ``hsm`` reports what it does: for metrics, never for decisions."""

from collections.abc import Iterator
from contextlib import contextmanager


class Observer:
    """Ignores every event; a subclass does not.

    Every method is called in the thread that does the work, and is quick. No argument ever names a
    key, a handle or a user.
    """

    def waited(self, seconds: float) -> None:
        """Note how long a session was waited for, in vain or not."""

    def called(self, function: str, seconds: float, code: str | None) -> None:
        """Note that a C_* function has returned; ``code`` is ``None`` for CKR_OK."""

    @contextmanager
    def withholding(self, *failures: type[Exception]) -> Iterator[None]:
        """Note what the ``with`` block calls only if it does not end with one of ``failures``.

        Which call was refused, and how long each took, would say why.
        """
        yield

    def connected(self, epoch: int) -> None:
        """Note that the token is ready; epochs of a process count from 1."""

    def lost(self, cause: str) -> None:
        """Note that the token is not ready any more; see ``State.cause``."""

    def broke_seal(self) -> None:
        """Note that the row of a key was changed behind the back of the service."""
