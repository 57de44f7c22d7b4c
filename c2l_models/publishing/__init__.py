"""Weights -> something that others can load: convert, export, publish, and the model card."""
