"""Find a release by name and verify it: records, weight files, provenance, and the leakage check."""
