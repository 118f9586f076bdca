"""What is told, as it happens, of the work of a token: for figures, never for decisions."""


class Observer:
    """Takes no notice; a subclass does.

    Every method is called in the thread that does the work, and is quick. No argument ever names a
    key, a handle or a user.
    """

    def waited(self, seconds: float) -> None:
        """Take notice that a session was waited for, in vain or not."""

    def called(self, function: str, seconds: float, code: str | None) -> None:
        """Take notice that a C_* function has ended; ``code`` is ``None`` if it said CKR_OK."""

    def connected(self, epoch: int) -> None:
        """Take notice that the token is ready; epochs of a process count from 1."""

    def lost(self, cause: str) -> None:
        """Take notice that the token is not ready any more; see ``State.cause``."""
