"""Containers and images. The only room that knows the Docker Engine."""
