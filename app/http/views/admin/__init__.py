"""The page on which people manage keys: what the API does, as forms.

Each view checks what was filled in by the schema of the API and calls what the API calls, for the
same principal. So there is no second rule of who may do what.
"""

from typing import Final

from app.http.endpoint import Resource
from app.http.views.admin import actions, entrance, keys, overviews

RESOURCES: Final[tuple[Resource, ...]] = (
    *(entrance.resource, keys.resource, actions.resource, overviews.resource),
)
