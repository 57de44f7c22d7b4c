"""The reproducibility script: the paper's tables, this project's comparison, and a release, from raw folders on."""
