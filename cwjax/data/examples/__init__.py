"""Segments to the batches of training: tokens, contexts, windows, order."""
