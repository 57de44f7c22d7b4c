"""A file on disk -> one grey image: formats, DICOM, bit depth, the networks' transform, and synthetic films."""
