"""A path, a folder or a Hugging Face repository -> the bytes of a weight file, verified."""
