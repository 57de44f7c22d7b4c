"""Evaluation shared by probing, fine-tuning, detection and inspection: tasks, metrics, intervals, reports, plots."""
