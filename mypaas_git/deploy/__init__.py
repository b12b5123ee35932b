"""The way from a commit to a live release."""
