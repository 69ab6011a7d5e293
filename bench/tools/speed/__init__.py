"""The speed benchmark: quintain, a bare loop and other libraries at the same work, side by side.

It measures what a user can call: nothing here reaches below `quintain.bench.evaluate`.
"""
