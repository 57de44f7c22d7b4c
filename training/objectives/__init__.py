"""Pretraining objectives, one readable file each."""
