"""Datasets: what they hold, files, collection, measures."""
