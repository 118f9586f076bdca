"""Print the rows of the table of settings in docs/operating.md.

python -m scripts.settings_table
"""

from dataclasses import MISSING, fields
from typing import Any

from app.config import Config
from app.settings import name_of


def settings_table() -> str:
    """Return the rows of the table in docs/operating.md: variable, default, meaning."""
    return "\n".join(
        f"| `{name_of(setting)}` | {_shown(setting.default)} | {setting.metadata['meaning']} |"
        for setting in fields(Config)
    )


def _shown(default: Any) -> str:
    if default is MISSING:
        return "required"
    if default in {None, "", ()}:
        return ""
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    return f"`{int(default) if isinstance(default, bool) else default}`"


def main() -> None:
    """Print them."""
    print(settings_table())


if __name__ == "__main__":
    main()
