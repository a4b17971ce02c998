"""The object store: R2 or any S3, through boto3. Errors are StoreError and name bucket and key.

R2 refuses aws-chunked trailers, which boto3 sends by default since 1.36: the only form without one is
`request_checksum_calculation="when_required"` plus an explicit `ChecksumSHA256` (measured on the request's headers).
Parts of a multipart upload have equal size, as R2 demands. Nothing here lists a bucket to find data; listing serves
only to find what should not be there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError

from depthvault.archive.throttle import Throttle, Throttled
from depthvault.config import Secrets, StoreConfig
from depthvault.errors import ConfigError, StoreError

_log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
_UNABLE = {"NotImplemented", "501", "MethodNotAllowed", "405"}
_TAKEN = {"412", "PreconditionFailed", "ConditionalRequestConflict", "409"}
_PASSING = {"429", "500", "502", "503", "504", "SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable"}
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Held:
    """What the store returned for a key, hashed here from the bytes it sent."""

    sha256: str
    bytes: int


class Listed(NamedTuple):
    """An object as the store lists it: its key, bytes, and when it was put."""

    key: str
    size: int
    modified: datetime


class Unfinished(NamedTuple):
    """An upload in parts that was begun and neither completed nor aborted."""

    key: str
    upload_id: str
    begun: datetime


@cache
def _session() -> boto3.session.Session:
    """One session for all stores: it reads the service's description, which takes longer than a request."""
    return boto3.session.Session()


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Store:
    """One bucket behind an optional prefix. Keys are paths relative to `archive/`. Safe to use from many threads."""

    def __init__(
        self,
        bucket: str,
        access_key: str,
        secret_key: str,
        *,
        endpoint: str | None = None,
        config: StoreConfig | None = None,
        allow_http: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        seed: int | None = None,
    ) -> None:
        config = config or StoreConfig()
        if endpoint is not None:
            address = urlsplit(endpoint)
            if address.scheme not in ("http", "https") or not address.hostname:
                raise ConfigError(
                    "R2_ENDPOINT_URL: write https://<account>.r2.cloudflarestorage.com or another S3 address"
                )
            if address.scheme == "http" and not allow_http and not _is_loopback(address.hostname):
                raise ConfigError(
                    f"R2_ENDPOINT_URL: plain http to {address.hostname} would send data in the clear; use https"
                )
        self.bucket = bucket
        self.prefix = config.prefix.strip("/")
        self._part = config.multipart_bytes
        self._attempts = config.attempts
        self.conditional = config.conditional
        self._refuses_overwriting = False
        self._sleep = sleep
        self._random = random.Random(seed)  # noqa: S311 - jitter, not a secret
        self._throttle = Throttle(config.bandwidth, sleep)
        self._client: Any = _session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=config.region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=BotoConfig(
                signature_version="s3v4",
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 1},  # ours, so that a conditional put that was retried is understood
                connect_timeout=10,
                read_timeout=60,
                max_pool_connections=16,
                s3={"addressing_style": "path"},
            ),
        )

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def object_key(self, key: str) -> str:
        """The key inside the bucket."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def _call(self, what: str, key: str, action: Callable[[], _Result]) -> _Result:
        """Run `action`, again on errors that pass. Raises StoreError; ClientError of a clear answer passes through."""
        for attempt in range(1, self._attempts + 1):
            try:
                return action()
            except ClientError as error:
                code = _code(error)
                if code not in _PASSING:
                    raise
                problem = f"{code}: {error.response.get('Error', {}).get('Message', '')}"
            except (BotoCoreError, OSError) as error:
                problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
            if attempt < self._attempts:
                self._sleep(min(30.0, 0.2 * 2**attempt) * self._random.uniform(0.5, 1.0))
        raise StoreError(f"{what} {self.bucket}/{self.object_key(key)}: {problem} ({self._attempts} attempts)")

    def _refused(self, what: str, key: str, error: ClientError) -> StoreError:
        message = error.response.get("Error", {}).get("Message", "")
        return StoreError(f"{what} {self.bucket}/{self.object_key(key)}: {_code(error)}: {message}".rstrip(": "))

    def put(self, key: str, data: bytes, *, exclusive: bool = True) -> bool:
        """Put `data`. False when `exclusive` and the key is taken by other bytes; True when the store has `data`.

        Where `store.conditional` is false, exclusive means: looked first. Two at the same moment both succeed then.
        """
        if exclusive and not self.conditional and (held := self.get(key)) is not None:
            return held == data
        # Taken: an attempt whose answer was lost may have been ours.
        return self._put(key, data, exclusive) or self.get(key) == data

    def require_exclusive(self, key: str, data: bytes) -> None:
        """Raise StoreError when the store would overwrite what is there, although it was told not to.

        Asked once, with an object that it has and the very bytes of it, so that nothing can be harmed.
        """
        if self._refuses_overwriting or not self.conditional:
            return
        if self._put(key, data, exclusive=True):
            raise StoreError(
                f"{self}: overwrites what is there although it is told not to (If-None-Match), so two hosts could both "
                "publish; with store.conditional false one host alone may publish into it (docs/deployment.md)"
            )
        self._refuses_overwriting = True

    def _put(self, key: str, data: bytes, exclusive: bool) -> bool:
        """Whether the store took it: it refuses an exclusive put of a key that is there."""
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        condition = {"IfNoneMatch": "*"} if exclusive else {}
        try:
            self._call(
                "PUT",
                key,
                lambda: self._client.put_object(
                    Bucket=self.bucket,
                    Key=self.object_key(key),
                    Body=Throttled(BytesIO(data), self._throttle),
                    ContentLength=len(data),
                    ChecksumSHA256=checksum,
                    **condition,
                ),
            )
        except ClientError as error:
            if exclusive and _code(error) in _TAKEN:
                return False
            raise self._refused("PUT", key, error) from error
        return True

    def put_file(self, key: str, path: Path, sha256: str) -> bool:
        """Put the file at `path`, exclusively. False when the key is taken by other bytes.

        From `store.multipart_bytes` on in equal parts, each with its own SHA-256.
        """
        size = path.stat().st_size
        if size <= self._part:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise StoreError(
                    f"PUT {self.bucket}/{self.object_key(key)}: {path.name} is not what was recorded of it"
                )
            return self.put(key, data)
        held = self.held(key) if self.exists(key) else None
        if held is not None:
            return held.sha256 == sha256
        return self._put_parts(key, path, sha256)

    def _put_parts(self, key: str, path: Path, sha256: str) -> bool:
        where = {"Bucket": self.bucket, "Key": self.object_key(key)}
        try:
            upload = self._call(
                "CREATE MULTIPART",
                key,
                lambda: self._client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256"),
            )
            where["UploadId"] = upload["UploadId"]
            try:
                parts = [
                    self._put_part(key, where, number, data) for number, data in enumerate(_parts(path, self._part), 1)
                ]
                self._call(
                    "COMPLETE MULTIPART",
                    key,
                    lambda: self._client.complete_multipart_upload(
                        **where, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                    ),
                )
            except BaseException:
                with contextlib.suppress(ClientError, BotoCoreError, OSError):  # what counts is the error above
                    self._client.abort_multipart_upload(**where)
                raise
        except ClientError as error:
            if _code(error) not in _TAKEN | _MISSING:
                raise self._refused("PUT", key, error) from error
            # Taken, or the upload is gone because an attempt whose answer was lost had completed it.
            held = self.held(key)
            if held is None:
                raise self._refused("PUT", key, error) from error
            return held.sha256 == sha256
        return True

    def _put_part(self, key: str, where: dict[str, Any], number: int, data: bytes) -> dict[str, Any]:
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        answer = self._call(
            f"PUT PART {number}",
            key,
            lambda: self._client.upload_part(
                **where,
                PartNumber=number,
                Body=Throttled(BytesIO(data), self._throttle),
                ContentLength=len(data),
                ChecksumSHA256=checksum,
            ),
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def exists(self, key: str) -> bool:
        """Whether the store says that it has the key. No proof of its bytes: that is `held`."""
        try:
            self._call("HEAD", key, lambda: self._client.head_object(Bucket=self.bucket, Key=self.object_key(key)))
        except ClientError as error:
            if _code(error) in _MISSING:
                return False
            raise self._refused("HEAD", key, error) from error
        return True

    def get(self, key: str) -> bytes | None:
        """The object's bytes; None when there is none."""
        chunks: list[bytes] = []

        def start() -> None:
            chunks.clear()

        return b"".join(chunks) if self._read(key, chunks.append, start) else None

    def held(self, key: str) -> Held | None:
        """GET the object and hash what came: the only proof that the store holds it. None when there is none."""
        digest, size = hashlib.sha256(), 0

        def start() -> None:
            nonlocal digest, size
            digest, size = hashlib.sha256(), 0

        def take(chunk: bytes) -> None:
            nonlocal size
            digest.update(chunk)
            size += len(chunk)

        return Held(digest.hexdigest(), size) if self._read(key, take, start) else None

    def download(self, key: str, path: Path) -> Held | None:
        """GET the object into `path`, and say what came; None (and no file) when there is none."""
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as file:

            def start() -> None:
                nonlocal digest, size
                digest, size = hashlib.sha256(), 0
                file.seek(0)
                file.truncate()

            def take(chunk: bytes) -> None:
                nonlocal size
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)

            found = self._read(key, take, start)
        if not found:
            path.unlink()
            return None
        return Held(digest.hexdigest(), size)

    def _read(self, key: str, take: Callable[[bytes], object], start: Callable[[], None]) -> bool:
        def action() -> None:
            start()
            answer = self._client.get_object(Bucket=self.bucket, Key=self.object_key(key))
            with contextlib.closing(answer["Body"]) as body:
                for chunk in body.iter_chunks(_CHUNK):
                    self._throttle.take(len(chunk))
                    take(chunk)

        try:
            self._call("GET", key, action)
        except ClientError as error:
            if _code(error) in _MISSING:
                return False
            raise self._refused("GET", key, error) from error
        return True

    def list_objects(self, under: str = "") -> Iterator[Listed]:
        """Each object whose key begins with `under`, by key."""
        strip = len(self.object_key("")) if self.prefix else 0
        where = {"Bucket": self.bucket, "Prefix": self.object_key(under)}
        while True:
            try:
                page = self._call("LIST", under, partial(self._client.list_objects_v2, **where))
            except ClientError as error:
                raise self._refused("LIST", under, error) from error
            for item in page.get("Contents", []):
                yield Listed(item["Key"][strip:], item["Size"], item["LastModified"])
            if not page.get("IsTruncated"):
                return
            where["ContinuationToken"] = page["NextContinuationToken"]

    def unfinished(self, under: str) -> Iterator[Unfinished]:
        """Uploads in parts of keys that begin with `under`. None where the server cannot list them."""
        strip = len(self.object_key("")) if self.prefix else 0
        where = {"Bucket": self.bucket, "Prefix": self.object_key(under)}
        while True:
            try:
                page = self._call("LIST UPLOADS", under, partial(self._client.list_multipart_uploads, **where))
            except ClientError as error:
                if _code(error) in _UNABLE | {"NoSuchUpload"}:  # which rclone answers when there is none
                    return
                raise self._refused("LIST UPLOADS", under, error) from error
            for item in page.get("Uploads", []):
                yield Unfinished(item["Key"][strip:], item["UploadId"], item["Initiated"])
            if not page.get("IsTruncated"):
                return
            where["KeyMarker"] = page.get("NextKeyMarker", "")
            where["UploadIdMarker"] = page.get("NextUploadIdMarker", "")

    def last_part(self, upload: Unfinished) -> datetime:
        """When the last part of an upload came; when it was begun, if none did (or it is gone meanwhile)."""
        where = {"Bucket": self.bucket, "Key": self.object_key(upload.key), "UploadId": upload.upload_id}
        last: datetime = upload.begun
        while True:
            try:
                page = self._call("LIST PARTS", upload.key, partial(self._client.list_parts, **where))
            except ClientError as error:
                if _code(error) in _MISSING | _UNABLE:
                    return last
                raise self._refused("LIST PARTS", upload.key, error) from error
            last = max([last, *(part["LastModified"] for part in page.get("Parts", []))])
            if not page.get("IsTruncated"):
                return last
            where["PartNumberMarker"] = page["NextPartNumberMarker"]

    def abort(self, upload: Unfinished) -> None:
        """Delete the parts of an upload that will not be finished. That it is gone already is no error."""
        where = {"Bucket": self.bucket, "Key": self.object_key(upload.key), "UploadId": upload.upload_id}
        try:
            self._call("ABORT MULTIPART", upload.key, lambda: self._client.abort_multipart_upload(**where))
        except ClientError as error:
            if _code(error) not in _MISSING:
                raise self._refused("ABORT MULTIPART", upload.key, error) from error

    def delete(self, key: str) -> None:
        """Delete an object (only `raw/` journals past their keep time are ever deleted)."""
        try:
            self._call("DELETE", key, lambda: self._client.delete_object(Bucket=self.bucket, Key=self.object_key(key)))
        except ClientError as error:
            raise self._refused("DELETE", key, error) from error

    def check(self) -> None:
        """Raise StoreError when the bucket cannot be used with these keys."""
        for _ in self.list_objects("_manifests/"):
            return


def _parts(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(size):
            yield data


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@cache
def _caution(store: str) -> None:
    _log.warning(
        "%s: store.conditional is false: that this host alone publishes into it is believed, not proved", store
    )


def open_store(config: StoreConfig, secrets: Secrets, *, allow_http: bool = False) -> Store | None:
    """The configured store; None when there is none. `secrets` are read and nowhere kept but in the client.

    What it cannot prove is said in one line, once a process.
    """
    if not secrets.has_store:
        return None
    if not config.conditional:
        _caution(f"s3://{secrets.r2_bucket_name}/{config.prefix}".rstrip("/"))
    assert secrets.r2_bucket_name is not None
    assert secrets.r2_access_key_id is not None
    assert secrets.r2_secret_access_key is not None
    return Store(
        secrets.r2_bucket_name,
        secrets.r2_access_key_id.get_secret_value(),
        secrets.r2_secret_access_key.get_secret_value(),
        endpoint=secrets.r2_endpoint_url,
        config=config,
        allow_http=allow_http,
    )
