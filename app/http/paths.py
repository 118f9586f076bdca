"""What a path may hold where it names somebody."""

from werkzeug.routing import PathConverter


class NameConverter(PathConverter):
    """A name with whatever characters, line ends too: the view says what is wrong with it."""

    regex = r"[^/][\s\S]*?"
