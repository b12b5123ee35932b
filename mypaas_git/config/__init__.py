"""The variables that admins set with ``mypaas config``, one file a service."""
