"""Runs side by side: which ones, as rows, against one of them, as a table and as curves."""
