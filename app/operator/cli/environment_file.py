"""Files of settings as systemd's ``EnvironmentFile=`` reads them (systemd.exec(5))."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from app.settings import ConfigError

_ENTRY: Final = re.compile(
    r"""[ \t\r\n]*(?:
        (?P<comment>[#;][^\r\n]*)
      | (?P<name>[^= \t\r\n]+)[ \t]*=[ \t]*
        (?P<quoted>(?:(?:'[^']*'|"(?:[^"\\]|\\.)*")[ \t]*)*)
        (?P<plain>(?:[^\\ \t\r\n]|\\.|[ \t]+(?=[^ \t\r\n]))*)[ \t]*(?=[\r\n]|\Z)
      | (?P<rest>[^\r\n]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_QUOTED: Final = re.compile(r"""'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)\"""", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL: Final = re.compile(r'[\\"`$]')
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def read(path: Path) -> Mapping[str, str]:
    """Return the variables that ``path`` sets, the last of each name.

    Raises ``ConfigError`` if it cannot be read, and for each line that systemd would pass over with
    no more than a line in its log, or that its versions read differently.
    """
    try:
        return parse(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not in UTF-8") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse(text: str) -> Mapping[str, str]:
    """Return the variables that ``text`` sets; raise ``ConfigError`` with the number of a line."""
    variables = {}
    for entry in _ENTRY.finditer(text):
        if reason := _objection(entry):
            line = text.count("\n", 0, entry.end() - len(entry[0].lstrip())) + 1
            raise ConfigError(f"line {line}: {reason}")
        if entry["name"]:
            variables[entry["name"]] = _quoted(entry["quoted"]) + _plain(entry["plain"])
    return variables


def written(variables: Mapping[str, str]) -> str:
    """Return a text that sets ``variables``."""
    return "".join(f'{name}="{_quotable(value)}"\n' for name, value in variables.items())


def _quotable(value: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", value)


def _objection(entry: re.Match[str]) -> str | None:
    """Return why an entry is not taken, if it is not."""
    if entry["comment"]:
        is_ambiguous = entry["comment"].endswith("\\")
        return "a comment must not end with a backslash" if is_ambiguous else None
    if entry["rest"]:
        return "not of the form NAME=VALUE"
    if "\0" in entry[0]:
        return "a character NUL"
    if not _NAME.fullmatch(entry["name"]):
        return f"{entry['name']!r} cannot be the name of a variable"
    return "a quotation mark without its counterpart" if entry["plain"][:1] in {"'", '"'} else None


def _quoted(text: str) -> str:
    """Return what is in quotation marks: between single ones all counts as it is."""
    return "".join(
        part["single"] if part["double"] is None else _ESCAPED.sub(_in_double, part["double"])
        for part in _QUOTED.finditer(text)
    )


def _in_double(escaped: re.Match[str]) -> str:
    """Return what a backslash in double quotation marks stands for, as in a shell."""
    if escaped[1] == "\n":
        return ""
    return escaped[1] if escaped[1] in '"\\`$' else escaped[0]


def _plain(text: str) -> str:
    """Return what is not in quotation marks: a backslash continues a line, or is left out."""
    return _ESCAPED.sub(lambda escaped: escaped[1].strip("\r\n"), text)
