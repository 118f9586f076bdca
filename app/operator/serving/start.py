"""The command that serves."""

import sys
from pathlib import Path
from typing import Final

CONFIGURATION: Final = Path(__file__).with_name("gunicorn.conf.py")
"""What gunicorn is told: a file that it reads anew when it is reloaded."""

COMMAND: Final = (sys.executable, "-P", "-m", __package__)
"""Without the directory that one happens to be in, whose modules are none of ours."""
