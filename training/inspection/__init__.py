"""`c2l look`: nearest neighbours, PCA map and class-activation maps of a network's features."""
