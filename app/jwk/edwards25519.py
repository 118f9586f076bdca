"""Points of edwards25519 (RFC 8032 §5.1): whether one is a public key at all.

OpenSSL asks that only when it verifies, and takes points of small order. All here is public.
"""

from typing import Final

_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
_Y_BITS: Final = 255
_DOUBLINGS: Final = 3  # the cofactor is 8

Point = tuple[int, int]


def is_public_key(octets: bytes) -> bool:
    """Tell whether ``octets`` encode a point of the curve, and not one of the eight of small order.

    As demanded of decoding (RFC 8032 §5.1.3), y is below p.
    """
    encoded = int.from_bytes(octets, "little")
    y = encoded & ((1 << _Y_BITS) - 1)
    x = _x_of(y, encoded >> _Y_BITS) if y < _P else None
    return x is not None and not _is_of_small_order((x, y))


def _x_of(y: int, sign: int) -> int | None:
    """Return x of x² = (y² - 1) / (dy² + 1), if there is one."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if x * x % _P != square or (not x and sign):
        return None
    return x if x % 2 == sign else _P - x


def _is_of_small_order(point: Point) -> bool:
    for _ in range(_DOUBLINGS):
        point = _doubled(point)
    return point == (0, 1)


def _doubled(point: Point) -> Point:
    """Return the point added to itself; the formulas are complete, so no denominator is 0."""
    x, y = point
    product = _D * x * x * y * y
    return (
        2 * x * y * pow(1 + product, -1, _P) % _P,
        (y * y + x * x) * pow(1 - product, -1, _P) % _P,
    )
