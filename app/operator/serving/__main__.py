"""gunicorn, with what serves jose-hsm."""

import os
import sys

from gunicorn.app.wsgiapp import WSGIApplication

from app.operator.serving import CONFIGURATION


class _Application(WSGIApplication):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn serves."""

    def load_config(self) -> None:
        """Refuse what would let callers wait for ever: no workers, and a master with the token.

        What opens the token has threads, whose locks a process that is forked then finds taken.
        """
        super().load_config()
        if self.cfg.preload_app:
            sys.exit("jose-hsm: --preload is not supported: each worker opens the token for itself")
        if not self.cfg.workers:
            sys.exit(
                "jose-hsm: nobody is served without workers: set WEB_CONCURRENCY, or --workers"
            )


def main() -> None:
    """Run it; more arguments are its own."""
    # It would put this directory first, and take a module there for one of ours.
    sys.path.append(os.getcwd())  # noqa: PTH109  # as gunicorn writes it
    sys.argv[1:1] = ["--config", str(CONFIGURATION), "app:create_app()"]
    _Application(prog="jose-hsm").run()


if __name__ == "__main__":
    main()
