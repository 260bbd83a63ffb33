"""uint8 batches -> random views, seeded per image."""
