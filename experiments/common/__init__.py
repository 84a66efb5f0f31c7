"""What compare.py, report.py, figures.py and fetch.py share."""
