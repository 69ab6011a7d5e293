"""White-box attacks: they follow gradients, whatever source these come from.

What several attacks share belongs in `parts`.
"""
