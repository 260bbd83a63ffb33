"""The demo that `make quickstart` runs."""
