"""Other libraries' attacks, run as they are: one file a library, and what they share."""
