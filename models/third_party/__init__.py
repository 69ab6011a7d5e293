"""Other libraries' models, taken as they are: one file a library, and what they share.

No architecture of our own belongs here.
"""
