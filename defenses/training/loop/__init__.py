"""The one training loop of all defenses, and its parts.

No defense belongs here.
"""
