"""Bodies of answers in JSON."""

from typing import Any

import orjson
from flask.json.provider import DefaultJSONProvider


class Responses(DefaultJSONProvider):
    """Writes the bodies of answers: in UTF-8, with the members in the order of the views.

    Flask's own takes longer over the base64url of a long text than the token over the text.
    """

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Return ``obj`` in JSON, without white space."""
        try:
            return orjson.dumps(obj).decode("utf-8")
        except orjson.JSONEncodeError:  # an ``id`` that does not fit into 64 bits
            return super().dumps(obj, **kwargs)
