"""Models: one architecture a file. They take inputs in [0, 1], normalise inside, return logits.

No weights and no training belong here.
"""
