"""The audit log: who used which key for what, in lines that hold one another in place."""

from app.audit.chain import Report, verify
from app.audit.log import AuditLog
from app.audit.since import History, since
from app.audit.uses import Uses

__all__ = ["AuditLog", "History", "Report", "Uses", "since", "verify"]
