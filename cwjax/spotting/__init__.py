"""What phrase spotters are trained on: sentences, their synthetic speech, encoder states, batches."""
