"""Do the features get better, and by how much: k-NN and linear probes, beside floors, with intervals."""
