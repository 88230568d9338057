"""The audit of the paper: its claims as data, evaluated on its tables and on ours, and forensics of its numbers.

experiments/audit/README.md explains how to read it and how to add a claim.
"""

from reproduction.report.audit.claims import Claim, OnReal, judge_all, load_claims, read_on_real_model
from reproduction.report.audit.expressions import ExpressionError, evaluate
from reproduction.report.audit.names import AuditError
from reproduction.report.audit.report import Audit, audit, real_markdown, totals, write_audit

__all__ = [
    "Audit",
    "AuditError",
    "Claim",
    "ExpressionError",
    "OnReal",
    "audit",
    "evaluate",
    "judge_all",
    "load_claims",
    "read_on_real_model",
    "real_markdown",
    "totals",
    "write_audit",
]
