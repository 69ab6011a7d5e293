"""Attacks: one method a file, each an optimiser over the input."""
