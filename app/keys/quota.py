"""How many keys one principal may own."""

from dataclasses import dataclass

from app.errors import TooManyKeys
from app.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """``most`` keys for each owner, any number for ``None``.

    Requests of the same moment do not see one another: as many more may be made as are under way.
    """

    registry: Registry
    most: int | None

    def require(self, owner: str, *, made: int = 1, freed: int = 0) -> None:
        """Raise ``TooManyKeys`` if ``owner`` may not have ``made`` more, with ``freed`` less."""
        if self.most is not None:
            owned = self.registry.census.owned_by(owner, at_most=self.most + freed)
            if owned - freed + made > self.most:
                raise TooManyKeys(self.most)
