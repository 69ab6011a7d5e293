"""Defenses: one method a file, each a way to train or to wrap a model."""
