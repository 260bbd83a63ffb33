"""Aliases: names that an owner gives to models, and may move from one model to another."""
