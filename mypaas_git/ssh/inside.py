"""The parts of paramiko's inside that are relied upon; its stubs leave them out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.message import Message

if TYPE_CHECKING:

    class InnerTransport(paramiko.Transport):
        _kex_info: ClassVar[Mapping[str, Any]]
        _channel_handler_table: Mapping[int, Callable[[Any, Message], None]]
        _handler_table: dict[int, Callable[[Message], None]]

        channels_seen: dict[int, bool]
        clear_to_send: threading.Event
        initial_kex_done: bool
        local_kex_init: bytes | None
        remote_version: str

        def _auth_trigger(self) -> None: ...
        def _negotiate_keys(self, m: Message) -> None: ...
        def _parse_newkeys(self, m: Message) -> None: ...
        def _send_kex_init(self) -> None: ...
        def _send_message(self, data: Message) -> None: ...
        def _send_user_message(self, data: Message) -> None: ...
        def _unlink_channel(self, chanid: int) -> None: ...

    class InnerAuthHandler(AuthHandler):
        transport: InnerTransport

        def _disconnect_no_more_auth(self) -> None: ...
        def _disconnect_service_not_available(self) -> None: ...
        def _parse_service_request(self, m: Message) -> None: ...
else:
    InnerTransport, InnerAuthHandler = paramiko.Transport, AuthHandler
