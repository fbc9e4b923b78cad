"""Audio files to samples, samples to log-mel frames, and what training changes of them."""
