"""An upload's images -> a packed dataset -> uint8 batches; which labels may be used."""
