"""How plugins are found, and built from the specs that people write.

Nothing that knows what a plugin of a kind does belongs here.
"""
