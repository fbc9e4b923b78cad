"""A made-up corpus: words that sound the same, spoken by eSpeak, in the layout of the Spoken Wikipedia Corpus."""
