"""The `c2l` commands that need the training pipeline."""
