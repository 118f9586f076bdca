"""What an operator sees of the service: lines on stdout, metrics, request ids."""

from app.observability.kinds import KINDS, Kind, Outcomes
from app.observability.last_hour import LastHour
from app.observability.logs import configure
from app.observability.metrics import Metrics
from app.observability.requests import Requests
from app.observability.stock import Stock
from app.observability.stream import Stream

__all__ = [
    "KINDS",
    "Kind",
    "LastHour",
    "Metrics",
    "Outcomes",
    "Requests",
    "Stock",
    "Stream",
    "configure",
]
