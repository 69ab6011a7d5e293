"""Attacks: one method a file, each an optimiser over the input.

Nothing that knows of devices, batches, epsilon grids or counting belongs here.
"""
