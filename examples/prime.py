def is_prime(n):
    """Return True when n is a prime number."""
