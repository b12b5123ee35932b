"""Keys on a hardware token: which signatures hold, and what a token must have been told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hardware import TOUCHED, VERIFIED, Token, string

from mypaas_git.access.keyline import Rights, parse_line
from mypaas_git.access.publickey import parse_public_key
from mypaas_git.access.securitykey import SecurityKey
from mypaas_git.errors import KeyRefused

KINDS = ("ed25519-sk", "ecdsa-sk")


@pytest.fixture(params=KINDS)
def token(request: pytest.FixtureRequest, tmp_path: Path) -> Token:
    return Token(tmp_path, "token", request.param)


def test_sound_signature(token: Token) -> None:
    """A signature tells its flags, whatever they are and however often it is made."""
    key = SecurityKey.parse(token.blob)
    for flags in (0, TOUCHED, TOUCHED | VERIFIED):
        token.flags = flags
        assert key.flags_of(token.sign(b"message"), b"message") == flags


def test_signatures_that_do_not_hold(token: Token, tmp_path: Path) -> None:
    """T7: of another message, key or application; with one byte changed, cut off or longer."""
    key = SecurityKey.parse(token.blob)
    good = token.sign(b"message")
    assert key.flags_of(good, b"another") is None
    assert key.flags_of(token.sign(b"message", application=b"web:"), b"message") is None
    for kind in KINDS:
        other = Token(tmp_path, "other", kind)
        assert key.flags_of(other.sign(b"message"), b"message") is None
    for at in range(len(good)):
        spoilt = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        assert key.flags_of(spoilt, b"message") is None
        assert key.flags_of(good[:at], b"message") is None
    assert key.flags_of(good + b"\0", b"message") is None


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_any_signature(
    tmp_path_factory: pytest.TempPathFactory, kind: str, noise: bytes
) -> None:
    """Whatever comes as a signature is read without falling over."""
    token = Token(tmp_path_factory.getbasetemp(), kind, kind)
    key = SecurityKey.parse(token.blob)
    for signature in (noise, string(token.algorithm.encode()) + string(noise) + bytes(5)):
        assert key.flags_of(signature, b"message") is None


def test_public_keys(token: Token) -> None:
    """ssh-keygen's file is taken; one that is cut off, or of another curve, is not."""
    assert parse_public_key(token.public) == (token.algorithm, token.blob)
    for spoilt in (token.public[:60], token.public.replace("sk-", "sk-x-", 1)):
        with pytest.raises(KeyRefused):
            parse_public_key(spoilt)
    with pytest.raises(ValueError, match="ends"):
        SecurityKey.parse(token.blob[:-1])


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        ("", {TOUCHED, TOUCHED | VERIFIED}),
        ("no-touch-required ", {0, TOUCHED, VERIFIED, TOUCHED | VERIFIED}),
        ("verify-required ", {TOUCHED | VERIFIED}),
        ("no-touch-required,verify-required ", {VERIFIED, TOUCHED | VERIFIED}),
    ],
)
def test_what_a_token_must_say(token: Token, options: str, accepted: set[int]) -> None:
    """Somebody must have touched it, unless the line says otherwise; a PIN may be asked for."""
    entry = parse_line(f"{options}{token.public}".encode().strip(), 1)
    assert entry is not None
    assert {flags for flags in (0, 1, 4, 5) if entry.rights.accepts(flags)} == accepted
    assert entry.text == f"{options}{token.public}".strip()


def test_no_token_no_flags() -> None:
    """The default is OpenSSH's: a touch."""
    assert Rights().accepts(TOUCHED)
    assert not Rights().accepts(VERIFIED)
