"""What this pipeline costs, as ratios of things timed by turns in one run: `c2l benchmark step|input|prepare|peer`.

Nothing is imported here: the processes that only decode images should not have to load torch.
"""
