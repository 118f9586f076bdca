"""Write what docs has of the interface: the OpenAPI document and the pages made of it.

python -m scripts.openapi
"""

from scripts.openapi.files import files


def main() -> None:
    """Write them."""
    for path, text in files().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
