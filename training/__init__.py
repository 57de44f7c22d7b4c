"""The pipeline that made the released weights, in the order of the paper's Algorithm 1."""
