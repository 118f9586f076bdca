"""Make a token to play with, and a registry: ``python -m scripts.make_token NAME STATE_DIR``."""

import os
import subprocess
import sys
from pathlib import Path

from scripts.throwaway import make_token
from scripts.tokens import TOKENS


def main() -> None:
    """Leave the settings of the token in ``token.env``, or exit with the reason why not.

    A token that has daemons is there as long as the shell that is started then.
    """
    name, state_dir = sys.argv[1], Path(sys.argv[2]).resolve()
    if name not in TOKENS:
        sys.exit(f"jose-hsm: no token is named {name!r}: {', '.join(TOKENS)}")
    missing = TOKENS[name].needs()
    if missing:
        sys.exit(f"jose-hsm: {name} needs: {missing}")
    file = state_dir / "token.env"
    if file.exists():
        TOKENS[name].serve(state_dir)
    else:
        settings = make_token(state_dir, name)
        file.write_text("".join(f'{setting}="{value}"\n' for setting, value in settings.items()))
    print(file, flush=True)
    if TOKENS[name].has_daemons:
        print("the token is there for what this shell starts, until it ends", flush=True)
        subprocess.run([os.environ.get("SHELL", "/bin/sh")], check=False)


if __name__ == "__main__":
    main()
