"""Who may do what, and what a service may ask of the host."""
