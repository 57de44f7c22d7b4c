"""Find, download and verify the bytes of a weight file: from a path, a folder or a Hugging Face repository."""
