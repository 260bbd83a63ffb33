"""Models: backbones, heads, the encoder with its preprocessing, EMA copies, gradient caching."""
