"""A gRPC service that repeats what it is told, with its version; runs in a container."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

ONCE = "/echo.Echo/Once"
STREAM = "/echo.Echo/Stream"


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """``Once`` answers one message, ``Stream`` each as it comes. Messages are plain bytes."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == ONCE:
            return grpc.unary_unary_rpc_method_handler(lambda message, _: reply(message))
        if details.method == STREAM:
            return grpc.stream_stream_rpc_method_handler(stream)
        return None


def stream(messages: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
    yield from map(reply, messages)


def reply(message: bytes) -> bytes:
    return Path("/version").read_bytes().strip() + b" " + message


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(4), handlers=[Echo()])
    server.add_insecure_port("0.0.0.0:50051")
    server.start()
    # As process 1 it would be deaf to SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: server.stop(0))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
