"""What commands print: plain lines for scripts, a table and a spinner for a terminal."""

# ruff: noqa: PLC0415  # rich takes a tenth of a second to import, and scripts have no use for it

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

import click

as_json: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def prepare_output() -> None:
    """Have characters that a terminal does not know printed by their numbers.

    What of standard input, output and error is closed is empty, or for nobody.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.encoding != "utf-8":
            with suppress(OSError):  # it asks where a file is at, even where there is no such place
                stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Let what could not be written go, which the interpreter would try once more at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def print_json(value: Any) -> None:
    """Print what a script reads."""
    print(written(value))


def written(value: Any) -> str:
    """Return JSON as a script and a person can read it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def print_list(title: str, items: Iterable[object]) -> None:
    """Print how many items there are, and each on a line of its own."""
    listed = list(items)
    print(f"{title}: {len(listed)}")
    for item in listed:
        print(f"  {item}")


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns as wide as they have to be; a terminal folds them into its width."""
    lines = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_for_people(head, lines)
    else:
        _print_for_scripts([head, *lines])


def print_members(members: Mapping[str, Any], *, as_json: bool) -> None:
    """Print an object, a member on a line unless it is to be JSON."""
    if as_json:
        print_json(members)
    else:
        print_table(("member", "value"), ((name, cell(members[name])) for name in members))


def cell(value: Any) -> Any:
    """Return what a table has in place of an array or an object."""
    match value:
        case list():
            return " ".join(map(str, map(cell, value)))
        case dict():
            return "; ".join(f"{name}: {cell(value[name])}" for name in value)
        case _:
            return value


def _print_for_scripts(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _print_for_people(head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in head:
        table.add_column(title, overflow="fold")  # no kid loses its end
    for line in lines:
        table.add_row(*map(Text, line))  # a name in brackets is no markup
    Console().print(table)


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is under way, for one ``with`` block.

    Gives the function that changes the text. Lines printed meanwhile stand above it.
    """
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield status.update
