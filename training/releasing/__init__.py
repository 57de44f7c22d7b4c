"""A finished run -> a release: weight file, record, provenance and metrics."""
