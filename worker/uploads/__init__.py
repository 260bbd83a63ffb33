"""An upload becomes a dataset or a model, in a sandboxed process."""
