"""The report of an evaluation: one page and a LaTeX table from the files that the evaluation leaves."""
