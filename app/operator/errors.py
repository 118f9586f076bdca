"""What goes wrong for an operator, and only there."""


class BackupError(Exception):
    """A backup cannot be written, read or restored; the text says why and what to do."""
