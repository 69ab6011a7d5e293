"""Everything on disk: files written whole or not at all, checkpoints, records, the run directory.

Nothing that computes a result belongs here.
"""
