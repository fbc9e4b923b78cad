"""Prepared corpora: what they hold, how they are built, and what is reported of them."""
