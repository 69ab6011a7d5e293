"""Attacks on one model over one grid: epsilon search, batches, verification, certificates, checks.

Nothing that knows of suites, run directories or tables belongs here.
"""
