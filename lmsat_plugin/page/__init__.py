"""The report: one HTML page with verdicts, figures and tables."""
