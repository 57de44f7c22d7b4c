"""Turn a finished run into a release: weight file, record, provenance and metrics."""
