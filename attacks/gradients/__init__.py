"""Gradient sources: where an attack's gradient comes from.

Nothing that moves an image belongs here.
"""
