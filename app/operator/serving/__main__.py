"""gunicorn, with what serves jose-hsm."""

import os
import sys

from gunicorn.app.wsgiapp import run

from app.operator.serving import CONFIGURATION


def main() -> None:
    """Run it; more arguments are its own."""
    # It would put this directory first, and take a module there for one of ours.
    sys.path.append(os.getcwd())  # noqa: PTH109  # as gunicorn writes it
    sys.argv[1:1] = ["--config", str(CONFIGURATION), "app:create_app()"]
    run(prog="jose-hsm")


if __name__ == "__main__":
    main()
