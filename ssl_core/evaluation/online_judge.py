"""Online evaluation: how good the features are, measured in a moment while the encoder trains."""
