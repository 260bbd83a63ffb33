"""Deletion of jobs and models: the rows that name their files go at once, files and points are removed by the keeper.

The row of a deleted job or model stays, without its content: others refer to it, and counts of ends do not fall.
"""
