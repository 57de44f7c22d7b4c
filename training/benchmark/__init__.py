"""`c2l benchmark step|input|prepare|embed|probe|peer|scaling|coverage`: costs as ratios, and intervals' coverage.

Everything whose speed is compared is timed alternately in one run. This file imports nothing, because the processes
that only decode images must not load torch.
"""
