"""An examination of the whole installation, as a person would make it: step by step, to the end."""

from app.operator.doctor.check import Check
from app.operator.doctor.doctor import Doctor, workers
from app.operator.doctor.verdict import Result

__all__ = ["Check", "Doctor", "Result", "workers"]
