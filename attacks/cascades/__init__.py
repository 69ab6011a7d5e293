"""Cascades: attacks one after another, each on what those before it left.

No attack of its own belongs here.
"""
