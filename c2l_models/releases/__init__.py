"""A name -> verified weights: release records, their files, provenance, and the leakage check."""
