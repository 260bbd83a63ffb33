"""Readers of uploads: a dataset or a model from untrusted files, in a sandboxed process."""
