"""Prepare weights for others: convert checkpoints, export, publish on the hub, write model cards."""
