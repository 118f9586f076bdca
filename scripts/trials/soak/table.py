"""What is printed."""

from collections.abc import Mapping


class Table:
    """Lines, and whether one of them is bad."""

    def __init__(self) -> None:
        self.is_bad = False

    def show(self, title: str, value: object, *, bad: bool = False) -> None:
        """Print a line."""
        self.is_bad |= bad
        print(f"{title:<56}{value!s:>12}{'  BAD' if bad else ''}", flush=True)

    def show_zero(self, title: str, number: int) -> None:
        """Print a number that must be 0."""
        self.show(title, number, bad=number > 0)

    def show_counts(self, title: str, counts: Mapping[str, int]) -> None:
        """Print numbers under a title."""
        print(title)
        for name, number in sorted(counts.items()):
            self.show(f"  {name}", number)
