"""Classifiers on frozen features: linear probe, k-NN, and the baselines beside them."""
