"""The Spoken Wikipedia Corpus: its XML, the times of its words, and articles cut by them."""
