"""Figures, tables and statements drawn from the databases of studies of peers (experiments/figures.py)."""
