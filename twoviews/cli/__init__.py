"""The `twoviews` command-line interface."""
