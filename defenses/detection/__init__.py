"""Defenses that reject inputs that look adversarial.

Nothing that changes an input belongs here.
"""
