"""Bundled suites, run by name: `quintain run quickstart`."""
