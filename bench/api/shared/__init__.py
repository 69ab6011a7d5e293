"""What all packages share and no plugin's author needs: text made safe, options, threads.

Nothing that a plugin imports, and nothing that one package alone needs, belongs here.
"""
