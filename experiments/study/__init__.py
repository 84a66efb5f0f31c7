"""Figures, tables and statements drawn from the databases of pair studies (experiments/figures.py)."""
