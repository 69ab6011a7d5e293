"""The page of runs: a single file that opens anywhere; nothing that computes results."""
