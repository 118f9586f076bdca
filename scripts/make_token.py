"""Make a token to play with, and a registry: ``python -m scripts.make_token NAME STATE_DIR``."""

import sys
from pathlib import Path

from scripts.throwaway import make_token
from scripts.tokens import TOKENS


def main() -> None:
    """Leave the settings of the token in ``token.env``, or exit with the reason why not."""
    name, state_dir = sys.argv[1], Path(sys.argv[2]).resolve()
    if name not in TOKENS:
        sys.exit(f"jose-hsm: no token is named {name!r}: {', '.join(TOKENS)}")
    missing = TOKENS[name].needs()
    if missing:
        sys.exit(f"jose-hsm: {name} needs: {missing}")
    file = state_dir / "token.env"
    if not file.exists():
        settings = make_token(state_dir, name)
        file.write_text("".join(f'{setting}="{value}"\n' for setting, value in settings.items()))
    sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
