"""The token as the doctor examines it and as adoption finds it."""
