"""The folder of a pretraining run: identity, checkpoints, log, curves, and the exported backbone."""
