"""Classifiers on frozen features (linear probe, k-NN), their baselines, and the k-NN monitor of pretraining."""
