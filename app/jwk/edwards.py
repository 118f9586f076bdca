"""Points of Edwards curves (RFC 8032): whether one is a public key at all.

OpenSSL asks that only when it verifies, and takes points of small order. All here is public.
"""

from dataclasses import dataclass

Point = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edwards:
    """The curve ax² + y² = 1 + dx²y² modulo p, whose cofactor is 2 to the power ``doublings``.

    A square root modulo p is the power ``root_exponent`` of the number, or ``root_factor`` times
    that, if there is one (RFC 8032 §5.1.3 step 3, §5.2.3 step 3).
    """

    p: int
    a: int
    d: int
    doublings: int
    root_exponent: int
    root_factor: int = 1

    def is_public_key(self, octets: bytes) -> bool:
        """Tell whether ``octets`` encode a point of the curve, and not one of small order.

        As demanded of decoding (RFC 8032 §5.1.3, §5.2.3), y is below p; the sign of x is the
        highest bit.
        """
        encoded, y_bits = int.from_bytes(octets, "little"), 8 * len(octets) - 1
        y = encoded & ((1 << y_bits) - 1)
        x = self._x_of(y, encoded >> y_bits) if y < self.p else None
        return x is not None and not self._is_of_small_order((x, y))

    def _x_of(self, y: int, sign: int) -> int | None:
        """Return x of x² = (y² - 1) / (dy² - a), if there is one."""
        square = (y * y - 1) * pow(self.d * y * y - self.a, -1, self.p) % self.p
        root = pow(square, self.root_exponent, self.p)
        for x in (root, root * self.root_factor % self.p):
            if x * x % self.p == square and (x or not sign):
                return x if x % 2 == sign else self.p - x
        return None

    def _is_of_small_order(self, point: Point) -> bool:
        for _ in range(self.doublings):
            point = self._doubled(point)
        return point == (0, 1)

    def _doubled(self, point: Point) -> Point:
        """Return the point added to itself; the formulas are complete, so no denominator is 0."""
        x, y = point
        product = self.d * x * x * y * y
        return (
            2 * x * y * pow(1 + product, -1, self.p) % self.p,
            (y * y - self.a * x * x) * pow(1 - product, -1, self.p) % self.p,
        )
