"""The audit log: who used which key for what, in lines that hold one another in place."""

from app.audit.chain import Report, verify
from app.audit.changes_since import Change, ChangesSince, since
from app.audit.log import BEGINNING, AuditLog

__all__ = ["BEGINNING", "AuditLog", "Change", "ChangesSince", "Report", "since", "verify"]
