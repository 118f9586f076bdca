"""Which paths the CEKs of each key management algorithm can take."""

from hsm.agreeing import AgreementPath, WrappedAgreementPath
from hsm.algorithms import KeyAgreement, KeyManagement, RsaOaep
from hsm.splitting import SplittingPath
from hsm.wrapping import Path, ProcessPath, TokenPath


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
