"""The server: one port that completion clients of several kinds already speak to."""
