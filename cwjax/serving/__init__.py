"""A server that any OpenAI client talks to, and its page."""
