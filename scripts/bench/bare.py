"""What Flask alone costs: a view that parses a body and returns the JSON that the service does.

Served by gunicorn's own threaded worker. Which answer, the path says by its number.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

from flask import Flask, request

ANSWERS: Final = "BENCH_ANSWERS"
"""Names the file with the answers: a JSON array."""


def create_app() -> Flask:
    """Build the application."""
    app = Flask(__name__, static_folder=None)
    answers = json.loads(Path(os.environ[ANSWERS]).read_text("utf-8"))

    @app.post("/<int:number>")
    def answer(number: int) -> Any:
        request.get_json()
        return answers[number]

    return app
