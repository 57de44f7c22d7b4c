"""`c2l benchmark step|input|prepare|embed|peer|scaling`: costs of this pipeline, as ratios to a baseline.

Everything that is compared is timed alternately in one run. This file imports nothing, because the processes that
only decode images must not load torch.
"""
