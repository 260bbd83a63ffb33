"""Distributed training: process groups, collectives, synchronised batch norm."""
