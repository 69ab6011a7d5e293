"""Datasets: where the images of a benchmark come from."""
