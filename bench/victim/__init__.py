"""The model under attack: access, counting, decisions by vote or rejection, the fast copy.

Nothing that knows of epsilon grids, suites or files belongs here.
"""
