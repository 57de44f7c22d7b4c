"""`c2l reproduce`: the paper's tables, this project's own comparison, and releases, computed from raw folders."""
