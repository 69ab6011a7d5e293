"""Datasets: where the images of a benchmark come from, and the containers that hold them.

Nothing that knows of models or attacks belongs here.
"""
