"""Black-box attacks: they ask for scores or for decisions alone.

What several attacks share belongs in `parts`.
"""
