"""The ssh listener and client. With access/keys.py the only room that knows paramiko."""
