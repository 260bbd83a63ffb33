"""Commands: one module per group of `twoviews` commands."""
