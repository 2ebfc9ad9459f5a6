"""A prefix of a bucket in an S3-compatible object store, through boto3, for the archive and backups."""

import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import md5
from typing import IO, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from schemas.errors import SettingsInvalid, StoreUnavailable

AT_ONCE: Final = 16  # connections for parallel reads
_TAKEN: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_MISSING: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_REFUSED: Final = frozenset(
    {
        *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket", "PermanentRedirect"),
        *("InvalidBucketName", "AuthorizationHeaderMalformed", "403", "NotImplemented"),
    }
)


class S3Place:
    """Any thread. Credentials: boto3's chain (AWS_… variables, profiles, roles). `of`, `setting`: for messages.

    Raises StoreUnavailable when the store is unavailable, SettingsInvalid when it refuses us.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        endpoint: str | None = None,
        of: str = "archive's",
        setting: str = "TOUCHFOLD_ARCHIVE",
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._endpoint = endpoint
        self._of = of
        self._setting = setting
        self._making = threading.Lock()  # guards creation of the client: any thread may use it first
        self._made: Any = None

    def close(self) -> None:
        with self._making:
            if self._made is not None:
                self._made.close()
                self._made = None

    @property
    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = boto3.session.Session().client("s3", endpoint_url=self._endpoint, config=_config(self))
            return self._made

    @property
    def path_style(self) -> bool:
        """Whether the bucket goes in the path: only Amazon's store is certain to support it in the host name."""
        return self._endpoint is not None

    def _get(self, name: str) -> bytes | None:
        with self._answered():
            try:
                return bytes(self._client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read())
            except ClientError as err:
                if _code(err) in _MISSING:
                    return None
                raise

    def _put(self, name: str, data: bytes | IO[bytes], digest: bytes | None = None) -> bool:
        """Whether it was put; False: the name is taken, or somebody is taking it. `digest`: MD5, for a file."""
        if digest is None:
            assert isinstance(data, bytes), "of a file it is given"
            digest = md5(data, usedforsecurity=False).digest()
        check = b64encode(digest).decode()
        with self._answered():
            try:
                self._client.put_object(
                    Bucket=self.bucket, Key=self.prefix + name, Body=data, ContentMD5=check, IfNoneMatch="*"
                )
            except ClientError as err:
                if _code(err) in _TAKEN:
                    return False
                raise
        return True

    def _put_new(self, name: str, data: bytes) -> bool:
        """Whether the object exists with these bytes, put by us (the response may have been lost) or earlier."""
        for _ in range(3):
            if self._put(name, data):
                return True
            there = self._get(name)
            if there is not None:
                return there == data
        raise StoreUnavailable(f"{self._url(name)} is neither there nor free", retry_after_s=1)

    def _list(self, start: str, after: str | None = None, most: int | None = None) -> list[str]:
        """Names that begin with `start` and come after `after`, ascending."""
        options: dict[str, Any] = {} if after is None else {"StartAfter": self.prefix + after}
        if most is not None:
            options["MaxKeys"] = most
        with self._answered():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + start, **options
            )
            names: list[str] = []
            for page in pages:
                names += [each["Key"][len(self.prefix) :] for each in page.get("Contents", ())]
                if most is not None and names:
                    break
        return names

    def _url(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{name}"

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Translate boto3's exceptions into ours."""
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as err:
            raise SettingsInvalid(
                f"{self._url('')}: no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another"
                " source that boto3 supports"
            ) from err
        except ClientError as err:
            code = _code(err)
            if code in _REFUSED:
                raise SettingsInvalid(
                    f"{self._url('')}: the object store refuses us ({code}): check {self._setting},"
                    " TOUCHFOLD_S3_ENDPOINT and the credentials"
                ) from err
            raise StoreUnavailable(f"the {self._of} object store answers {code}", retry_after_s=1) from err
        except BotoCoreError as err:
            raise StoreUnavailable(
                f"the {self._of} object store is unavailable ({type(err).__name__})", retry_after_s=1
            ) from err


class S3Objects(S3Place):
    """`Objects` under s3://bucket/prefix."""

    @property
    def url(self) -> str:
        return self._url("").rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        check = b64encode(md5(data, usedforsecurity=False).digest()).decode()
        with self._answered():
            self._client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=data, ContentMD5=check)

    def get(self, name: str) -> bytes | None:
        return self._get(name)

    def names(self, start: str = "") -> dict[str, int]:
        found: dict[str, int] = {}
        with self._answered():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + start
            )
            for page in pages:
                for each in page.get("Contents", ()):
                    found[each["Key"][len(self.prefix) :]] = int(each["Size"])
        return found

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            with self._answered():
                self._client.delete_object(Bucket=self.bucket, Key=self.prefix + name)


def _config(place: S3Place) -> Config:
    """Timeouts and retries; no checksums that only Amazon's store understands (ours are in the manifest)."""
    return Config(
        connect_timeout=3,
        read_timeout=30,
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=AT_ONCE + 8,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if place.path_style else "auto"},
    )


def _code(err: ClientError) -> str:
    found = err.response.get("Error", {}).get("Code")
    return str(found or err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "error"))
