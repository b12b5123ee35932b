"""Dockerfile text → ServiceSpec, purely."""
