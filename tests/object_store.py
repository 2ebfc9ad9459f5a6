"""An S3-compatible object store for tests: moto's server on its own port, with a new bucket for each test."""

import logging
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import boto3
import pytest

from infra.adapters.archive.s3_files import S3Files
from infra.adapters.archive.store import ParquetArchive

_NUMBERS: Final = count(1)
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class ObjectStore:
    """The server, and a client that knows nothing about the product."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.client: Any = boto3.session.Session().client("s3", endpoint_url=endpoint)

    def bucket(self) -> str:
        name = f"bucket-{next(_NUMBERS)}"
        self.client.create_bucket(Bucket=name)
        return name

    def names(self, bucket: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def read(self, bucket: str, name: str) -> bytes:
        return bytes(self.client.get_object(Bucket=bucket, Key=name)["Body"].read())

    def write(self, bucket: str, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=name, Body=data)

    def delete(self, bucket: str, name: str) -> None:
        self.client.delete_object(Bucket=bucket, Key=name)

    def archive(self, bucket: str, copies: Path, **options: Any) -> ParquetArchive:
        """A client of the archive s3://bucket/archive that fetches the manifest each time."""
        files = S3Files(bucket, "archive", copies, endpoint=self.endpoint, **{"refresh_s": 0.0, **options})
        return ParquetArchive(files)


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    from moto.server import ThreadedMotoServer  # noqa: PLC0415  # 1 s that other tests need not pay

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield ObjectStore(f"http://{host}:{port}")
        server.stop()
