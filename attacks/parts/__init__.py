"""What several attacks share: losses, boundary search, hyperplanes, changes of variable.

Nothing that can be run by itself belongs here.
"""
