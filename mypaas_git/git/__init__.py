"""Repositories: receiving, storing and reading them. The only room that knows dulwich."""
