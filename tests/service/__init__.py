"""Tests of the service's verbs, on both databases."""
