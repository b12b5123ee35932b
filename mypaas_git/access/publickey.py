"""Public keys: what this server can verify, and what is wrong with everything else."""

from __future__ import annotations

import base64
import hashlib
import re

import paramiko
from paramiko.pkey import UnknownKeyType

from mypaas_git.access import securitykey
from mypaas_git.access.fields import strings
from mypaas_git.errors import KeyRefused

ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    *securitykey.ALGORITHMS,
)
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 16384
MAX_BLOB = 8 * 1024
"""Bytes of a public key: four times what the longest RSA key takes."""
ALGORITHM_NAME = re.compile(r"(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+")


def fingerprint(blob: bytes) -> str:
    """A key's fingerprint as ``ssh-keygen -l`` prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return "SHA256:" + digest.rstrip("=")


def parse_public_key(text: str) -> tuple[str, bytes]:
    """The algorithm and wire format of a public key file's only key.

    Raises :class:`KeyRefused` saying what was found instead.
    """
    _refuse_other_files(text)
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) != 1:
        found = "several lines" if lines else "nothing"
        raise KeyRefused(f"one public key was expected and there is {found}")
    words = lines[0].split()
    if ALGORITHM_NAME.fullmatch(words[0]) is None:
        raise KeyRefused(
            "this is not a public key: it should start with ssh-ed25519, ecdsa-…, ssh-rsa "
            "or sk-… (rights are given with --admin, --service, --branch and --expires, not in "
            "the file)"
        )
    if len(words) == 1:
        raise KeyRefused(f"there is no key behind {words[0]}: the line is cut off")
    return words[0], decode(words[0], words[1])


def _refuse_other_files(text: str) -> None:
    if "PRIVATE KEY" in text or "PuTTY-User-Key-File" in text:
        raise KeyRefused(
            "this is a PRIVATE key, which nobody else may ever see: it was not stored. "
            "Give the public half (the file that ends in .pub), and make a new pair if "
            "this one has left its owner's machine"
        )
    if "BEGIN SSH2 PUBLIC KEY" in text:
        raise KeyRefused(
            "this is a public key in another format; convert it with: ssh-keygen -i -f FILE"
        )


def decode(algorithm: str, encoded: str) -> bytes:
    """A key's wire format, once it is sure that this server can verify its signatures."""
    if algorithm not in ALGORITHMS:
        raise KeyRefused(_why_unsupported(algorithm))
    try:
        blob = base64.b64decode(encoded, validate=True)
        _check_fields(algorithm, blob)
        if algorithm in securitykey.ALGORITHMS:
            securitykey.SecurityKey.parse(blob)
            return blob
        key = paramiko.PKey.from_type_string(algorithm, blob)
        sound = key.asbytes() == blob
    except (ValueError, TypeError, OverflowError, paramiko.SSHException, UnknownKeyType):
        sound = False
    if not sound:
        raise KeyRefused(f"the {algorithm} key is damaged or cut off: copy it again")
    if algorithm == "ssh-rsa" and not MIN_RSA_BITS <= key.get_bits() <= MAX_RSA_BITS:
        raise KeyRefused(
            f"an RSA key of {key.get_bits()} bits is not accepted; "
            "make a new one with: ssh-keygen -t ed25519"
        )
    return blob


def _check_fields(algorithm: str, blob: bytes) -> None:
    """Raise ValueError unless ``blob`` is a row of strings, of which the first is right.

    paramiko fills a string that ends early with zeros, up to a megabyte, and takes a
    minute to make a number of them.
    """
    if len(blob) > MAX_BLOB or strings(blob)[:1] != [algorithm.encode()]:
        raise ValueError("not such a key")


def _why_unsupported(algorithm: str) -> str:
    if algorithm.endswith("-cert-v01@openssh.com"):
        return "this is a certificate; give the plain public key it was made for"
    if algorithm == "ssh-dss":
        return "DSA keys are broken; make a new one with: ssh-keygen -t ed25519"
    return f"unknown key type {algorithm[:40]!a}; known are {', '.join(ALGORITHMS)}"
