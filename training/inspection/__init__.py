"""Pictures of what a network's features hold: neighbours, a map, and where a fine-tuned network looks."""
