"""Who does the jobs of a run: this process, several, or the workers of a cluster.

Each hands out what `NextJob` gives and yields the answers; records never depend on it.
"""
