"""Why a network answers as it does: functions of a network and images, usable by themselves.

No training, no attack, no figure and nothing that knows of suites belongs here.
"""
