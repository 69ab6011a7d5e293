"""Defenses that prove their answers: randomised smoothing and interval bounds.

Nothing without a proof belongs here.
"""
