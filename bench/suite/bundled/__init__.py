"""Bundled suites, run by name: `quintain run quickstart`. Data, no code."""
