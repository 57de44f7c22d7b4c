"""Fine-tuning on labels: from a start to figures on a test list that is looked at once."""
