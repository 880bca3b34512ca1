"""Reads the records of an offline W&B run: a log of blocks as LevelDB writes them, each record a protobuf message."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER, HEAD = 32768, 7, 7


def records(path: Path) -> Iterator[Any]:
    """The records that are whole so far."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), HEAD, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        if not kind or at + HEADER + length > len(data):
            return
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # the whole record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record
