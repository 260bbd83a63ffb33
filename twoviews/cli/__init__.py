"""The `twoviews` command."""
