"""Fine-tuning on labels: from an initialization to metrics on a test part that is evaluated once."""
