"""What a plugin's author may import: contracts, threat model, registry, random numbers, errors.

Nothing that runs attacks, trains networks or writes results belongs here.
"""
