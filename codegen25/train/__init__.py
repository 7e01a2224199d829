"""Training: what is learned (`objective`), in which order (`batches`), with which steps (`optim`, `trainer`)."""
