"""Starting the service: what gunicorn is told, and a token for development."""

from app.operator.serving.development import DevelopmentToken, NoDevelopmentToken
from app.operator.serving.start import COMMAND, CONFIGURATION

__all__ = ["COMMAND", "CONFIGURATION", "DevelopmentToken", "NoDevelopmentToken"]
