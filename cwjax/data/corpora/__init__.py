"""Readers of corpora, a file a kind, and what they share; `registry` knows them by name."""
