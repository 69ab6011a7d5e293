"""Gradient sources: where an attack's gradient comes from."""
