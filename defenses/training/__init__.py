"""Defenses by training: one method a file.

What they share, the training loop, belongs in `loop`.
"""
