"""Just enough of the Kubernetes CRI (k8s.io/cri-api, runtime/v1/api.proto) to do what a kubelet does with a pod.

A message is a dictionary of field numbers: text, a number, a message, or a list of these. That is all there is to
protobuf's wire format where nothing else is sent, so no code has to be generated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

import grpc

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

Value = Union[str, bytes, int, "Message", "list[Value]"]
Message = dict[int, Value]

_VARINT, _DELIMITED = 0, 2


def _varint(number: int) -> bytes:
    low = bytearray()
    while number >= 0x80:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*low, number])


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return b"".join(_field(number, value) for number, value in message.items())


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, list):
        return b"".join(_field(number, one) for one in value)
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    if isinstance(value, dict):
        value = encode(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _DELIMITED) + _varint(len(data)) + data


def decode(data: bytes) -> dict[int, int | bytes]:
    """The fields of an answer, of each number the last; messages within are left as bytes."""
    fields: dict[int, int | bytes] = {}
    place = 0

    def varint() -> int:
        nonlocal place
        number = shift = 0
        while True:
            byte = data[place]
            place += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while place < len(data):
        key = varint()
        length = varint()
        if key & 7 == _VARINT:
            fields[key >> 3] = length
        elif key & 7 == _DELIMITED:
            fields[key >> 3] = data[place : place + length]
            place += length
        else:
            raise ValueError(f"wire type {key & 7}")
    return fields


class Kubelet:
    """A connection to a CRI server's socket. Calls are those of `RuntimeService`."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix://{socket}")

    def __enter__(self) -> Kubelet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._channel.close()

    def __call__(self, name: str, request: Message, *, patience: float = 60.0) -> dict[int, int | bytes]:
        """One call. grpc.RpcError says what the server said."""
        call = self._channel.unary_unary(f"/runtime.v1.RuntimeService/{name}")
        answer: bytes = call(encode(request), timeout=patience, wait_for_ready=True)
        return decode(answer)
