"""Commands: one module for each group of `twoviews` commands."""
