"""Which paths the CEKs of each key management algorithm can take."""

from hsm.algorithms.families import KeyAgreement, KeyManagement, RsaOaep
from hsm.operations.cek import Path, ProcessPath, TokenPath
from hsm.operations.cek_agreed import AgreementPath, WrappedAgreementPath
from hsm.operations.cek_splitting import SplittingPath


def paths(row: KeyManagement) -> tuple[type[Path], ...]:
    """Return the paths that CEKs of ``row`` can take, the best first."""
    match row:
        case RsaOaep():
            return (TokenPath, SplittingPath, ProcessPath)
        case KeyAgreement(wrapping=None):
            return (AgreementPath,)
        case KeyAgreement():
            return (WrappedAgreementPath,)
        case _:
            return (TokenPath, SplittingPath)
