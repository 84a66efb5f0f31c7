"""What compare.py and report.py share: plans, child programs, accounting, tables, figures."""
