"""The demo of `make quickstart`: two methods trained and evaluated on scikit-learn's digits."""
