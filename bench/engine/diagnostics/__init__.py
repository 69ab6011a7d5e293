"""Checks of what a cell's numbers are worth: of the model, its gradients, and the attack.

Nothing that searches for adversarial examples belongs here.
"""
