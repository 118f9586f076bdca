"""JSON as the service writes it for itself and for others: in one line of ASCII."""

import json
from typing import Final

dumps: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""Return a value without white space, members in their order."""
