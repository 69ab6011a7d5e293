"""What only the command line uses: the conformance kit, the speed benchmark, scaffolds.

Nothing that another package needs belongs here.
"""
