"""Benchmarks: tasks, generation, judging and likelihood. Generating and judging are joined by files of samples."""
