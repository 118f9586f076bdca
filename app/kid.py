"""The form of a kid."""

import re
from typing import Final

_KID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def is_kid(text: str) -> bool:
    """Tell whether ``text`` is one that we could have given: any other string is unknown."""
    return _KID.fullmatch(text) is not None
