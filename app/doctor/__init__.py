"""An examination of the whole installation, as a person would make it: step by step, to the end."""

from app.doctor.doctor import Doctor, workers
from app.doctor.words import Check, Result

__all__ = ["Check", "Doctor", "Result", "workers"]
