"""Figures of runs, of studies, of comparisons, in one style."""
