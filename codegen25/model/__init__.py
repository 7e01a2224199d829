"""The model: LLaMA in PyTorch, and the Hugging Face folders it is read from and written to."""
