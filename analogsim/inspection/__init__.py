"""What of a network runs analog, and the proof that it does."""

from analogsim.inspection.carrying import Audit, AuditError, AuditRow, audit
from analogsim.inspection.overview import Summary, SummaryRow, cells_of, summary

__all__ = ["Audit", "AuditError", "AuditRow", "Summary", "SummaryRow", "audit", "cells_of", "summary"]
