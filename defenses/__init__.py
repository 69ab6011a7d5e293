"""Defenses: one method a file, each a way to train or to wrap a model.

Nothing that attacks a finished model belongs here.
"""
