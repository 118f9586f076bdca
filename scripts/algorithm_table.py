"""Print the rows of the README's table of algorithms, for a new token of this machine.

python -m scripts.algorithm_table
"""

import requests

from app.keys.capabilities import algorithm_table
from scripts.throwaway import service


def main() -> None:
    """Print them."""
    with service(workers=1) as running:
        answer = requests.get(f"{running.url}/v1/crypto/capabilities", timeout=60)
        answer.raise_for_status()
        print(algorithm_table(answer.json()))


if __name__ == "__main__":
    main()
