"""Datasets: where the images of a benchmark come from, and the containers that they are in.

Nothing that knows of models or attacks belongs here.
"""
