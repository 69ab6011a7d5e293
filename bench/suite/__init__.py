"""Many cells: configuration, the matrix of attacks and models, keys, resume, the runner.

Nothing that knows how one attack works belongs here.
"""
