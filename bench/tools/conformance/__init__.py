"""The conformance kit: what `quintain check` asks of every attack, ours included."""

from .kit import check_attack, check_plugin
from .report import Outcome, Report

__all__ = ["Outcome", "Report", "check_attack", "check_plugin"]
