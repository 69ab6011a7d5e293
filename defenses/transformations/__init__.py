"""Defenses that transform the input before the model sees it.

Nothing that trains belongs here.
"""
