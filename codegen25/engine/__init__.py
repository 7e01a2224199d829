"""The engine: a backend that runs the model over sequences, and what decides the next token."""
