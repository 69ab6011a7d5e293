"""Other libraries' attacks, run as they are: one file a library, and what they share.

No method of our own belongs here.
"""
