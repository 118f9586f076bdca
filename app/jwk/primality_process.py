"""Says whether OpenSSL finds an RSA key sound: a process that lives for one key.

``app.jwk.primality`` runs it as a script, so it imports nothing of ours. Its argument is the
directory that has ``cryptography``. The numbers p, q, d, dp, dq, qi, e and n come from standard
input, in hexadecimal; the answer is one word, or none if there is no telling.
"""

import ctypes
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def main() -> None:
    """Read a key and print the word; nobody may look into the process meanwhile."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    sys.path.append(sys.argv[1])
    from cryptography.exceptions import InternalError  # noqa: PLC0415  # see the line above
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415  # as above

    p, q, d, dp, dq, qi, e, n = (int(number, 16) for number in sys.stdin.read().split())
    numbers = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, rsa.RSAPublicNumbers(e, n))
    try:
        numbers.private_key(unsafe_skip_rsa_key_validation=False)
    except (ValueError, InternalError):
        print("refused")
    else:
        print("sound")


if __name__ == "__main__":
    main()
