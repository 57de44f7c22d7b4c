"""Read a radiograph file as one grayscale image, and prepare an image for a network; synthetic films."""
