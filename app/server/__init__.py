"""The server: all that reaches into gunicorn."""
