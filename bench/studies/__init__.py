"""Our studies, and what runs one: experiments that explain the numbers of a leaderboard.

Methods that are of use by themselves belong in `models/explain/`, not here.
"""
