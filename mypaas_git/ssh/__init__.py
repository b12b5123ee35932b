"""The ssh listener and client. With access/publickey.py the only room that knows paramiko."""
