"""Other libraries' models, taken as they are: one file a library, and what they share."""
