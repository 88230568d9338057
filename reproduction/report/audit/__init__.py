"""The audit of the paper: its claims as data, put to its own tables, and forensics of its numbers; ours beside them.

`audit` judges everything, `write_audit` writes it, `totals` says it in two sentences. experiments/audit/README.md says
how to read it and how to add a claim.
"""

from reproduction.report.audit.claims import Claim, Judged, Reading, judge, load_claims
from reproduction.report.audit.expressions import ExpressionError, evaluate
from reproduction.report.audit.findings import Finding
from reproduction.report.audit.paper import AuditError
from reproduction.report.audit.run import (
    Audit,
    audit,
    judge_all,
    read_on_real_model,
    real_markdown,
    totals,
    write_audit,
)

__all__ = [
    "Audit",
    "AuditError",
    "Claim",
    "ExpressionError",
    "Finding",
    "Judged",
    "Reading",
    "audit",
    "evaluate",
    "judge",
    "judge_all",
    "load_claims",
    "read_on_real_model",
    "real_markdown",
    "totals",
    "write_audit",
]
