"""From records to tables, statistics and figures.

Nothing that needs torch, and nothing that makes records, belongs here.
"""
