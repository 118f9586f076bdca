"""What a key type is (RFC 7517 §4.1): one row for each ``kty``, in a file of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.errors import BadRequest
from app.jwk.members import Members, Octets
from hsm import AgreementKey, KeySpec, PrivateKey, PublicKey

Material = bytes | PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How long keys are, in bits: those that are generated, the usual one first, and imported."""

    generated: tuple[int, ...]
    imported: range

    def chosen(self, bits: int | None) -> int:
        """Return the size of a new key. Where there is only one, ``bits`` is ignored."""
        if bits is None or len(self.generated) == 1:
            return self.generated[0]
        if bits not in self.generated:
            raise BadRequest(f"Field 'bits' must be one of: {', '.join(map(str, self.generated))}")
        return bits


def _without_sizes(_: Any) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyType:
    """One ``kty``.

    The first of ``private_members`` is in every private key; an import takes at least
    ``imported_members``. ``read_private`` returns the checked key of such members, or raises
    ``BadRequest``; so does ``prove_private`` of that key, where a check takes a processor for long.
    ``sizes`` are those of the keys of an ``alg``, and ``bits_of`` is that of one imported key,
    where size is a choice. ``encryption_alg`` is that of one without ``alg`` that says that it
    encrypts, and would sign.
    """

    kty: str
    public_members: tuple[str, ...] = ()
    private_members: tuple[str, ...]
    imported_members: tuple[str, ...]
    read_private: Callable[[KeySpec, Members], Material]
    prove_private: Callable[[Any], None] | None = None
    sizes: Callable[[str | None], Sizes | None] = _without_sizes
    bits_of: Callable[[Any], int | None] = _without_sizes
    encryption_alg: str | None = None
    is_alg_required: bool = False
    is_crv_optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PairType(KeyType):
    """A ``kty`` whose keys have a public half, of one of the classes ``public_keys``.

    ``crv``, empty where there are no ``crvs``, and octets of ``public_members`` are a key.
    ``read_public`` returns that of a caller, checked and good for signatures, and ``read_epk`` the
    checked ephemeral one of a key agreement; both raise ``BadRequest``. ``load_public`` returns
    one that ``write_public`` has written.
    """

    public_keys: tuple[type[Any], ...]
    write_public: Callable[[Any], dict[str, str]]
    load_public: Callable[[str, Octets], PublicKey]
    read_public: Callable[[str, Octets], PublicKey]
    read_epk: Callable[[str, Octets], AgreementKey] | None = None
    crvs: tuple[str, ...] = ()
    signing_crvs: tuple[str, ...] = ()
