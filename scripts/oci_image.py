#!/usr/bin/env python3
"""Writes an OCI image of a few files, as one archive: no daemon, no root, no base image.

The archive is an OCI image layout (OCI image specification 1.1) in a tar file, with Docker's manifest.json beside it, so
that podman, skopeo, containerd, kind and Docker all load it. The same input gives the same bytes: entries are sorted,
owned by root, and dated SOURCE_DATE_EPOCH.

    oci_image.py --output proxy.tar --name outrigger-proxy:0.1.0 --file target/outrigger-proxy=/usr/bin/outrigger-proxy \
        --entrypoint /usr/bin/outrigger-proxy --label org.opencontainers.image.title=outrigger-proxy

prints the manifest's digest and the layer's compressed size. Only the standard library.
"""

import argparse
import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import struct
import sys
import tarfile

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"

PT_INTERP = 3
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Refused(Exception):
    """What the caller asked for cannot be done; the text says why."""


def pair(text):
    """SOURCE=DESTINATION, or KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not key or not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form A=B")
    return key, value


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, type=pathlib.Path, help="the archive to write")
    parser.add_argument("--name", required=True, help="REPOSITORY:TAG")
    parser.add_argument("--file", action="append", default=[], type=pair, metavar="SOURCE=DESTINATION",
                        help="a file to put in; a program must be static")
    parser.add_argument("--entrypoint", required=True)
    parser.add_argument("--user", default="1337:1337", help="UID:GID (default: %(default)s)")
    parser.add_argument("--env", action="append", default=["PATH=/usr/bin:/usr/sbin"], metavar="NAME=VALUE")
    parser.add_argument("--label", action="append", default=[], type=pair, metavar="KEY=VALUE",
                        help="a label of the image, also an annotation of its manifest")
    parser.add_argument("--architecture", default=ARCHITECTURES.get(os.uname().machine, os.uname().machine),
                        help="Go's name of it (default: %(default)s)")
    parser.add_argument("--limit-bytes", type=int, help="refuse a compressed layer that is larger")
    return parser.parse_args()


def interpreter(content):
    """Whether an ELF program asks for a dynamic loader; None when it is no ELF program."""
    if content[:5] != b"\x7fELF\x02":
        return None
    offset, = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    kinds = (struct.unpack_from("<I", content, offset + number * size)[0] for number in range(count))
    return PT_INTERP in kinds


def read(source):
    try:
        return pathlib.Path(source).read_bytes()
    except OSError as error:
        raise Refused(f"{source}: {error.strerror}") from error


def contents(options):
    """{path in the image: (bytes, mode)}"""
    files = {}
    for source, destination in options.file:
        content = read(source)
        if interpreter(content):
            raise Refused(f"{source}: is dynamically linked, and the image has no loader; build it with "
                          "-C target-feature=+crt-static")
        files[destination] = (content, 0o755 if os.access(source, os.X_OK) else 0o644)
    for path in files:
        if not path.startswith("/") or os.path.normpath(path) != path:
            raise Refused(f"{path!r} is not an absolute path in the image")
    return files


def tar(entries, epoch):
    """A tar file of {path: (bytes, mode)}; directories come before what is in them."""
    folders = {str(folder) for path in entries for folder in pathlib.PurePath(path).parents} - {"/", "."}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folders | set(entries)):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mtime = epoch
            if path in folders:
                entry.type, entry.mode, content = tarfile.DIRTYPE, 0o755, b""
            else:
                content, entry.mode = entries[path]
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


class Layout:
    """The blobs of an OCI image layout."""

    def __init__(self):
        self.files = {"oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0o644)}

    def add(self, content, media_type):
        """Stores a blob; returns its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = (content, 0o644)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_json(self, value, media_type):
        return self.add(encode(value), media_type)


def encode(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def image(options, files, epoch):
    """-> (the layout, the manifest's descriptor, the layer's)"""
    created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = dict(options.label)
    layout = Layout()
    plain = tar(files, epoch)
    layer = layout.add(gzip.compress(plain, 9, mtime=0), LAYER)
    config = layout.add_json({
        "architecture": options.architecture,
        "os": "linux",
        "created": created,
        "config": {
            "User": options.user,
            "Env": options.env,
            "Entrypoint": [options.entrypoint],
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]},
        "history": [{"created": created, "created_by": "scripts/oci_image.py"}],
    }, CONFIG)
    manifest = layout.add_json({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
        "annotations": {"org.opencontainers.image.created": created, **labels},
    }, MANIFEST)
    tag = options.name.rpartition(":")[2]
    names = {"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": options.name}
    platform = {"architecture": options.architecture, "os": "linux"}
    index = {"schemaVersion": 2, "mediaType": INDEX,
             "manifests": [{**manifest, "platform": platform, "annotations": names}]}
    blob = "blobs/" + config["digest"].replace(":", "/")
    docker = [{"Config": blob, "RepoTags": [options.name], "Layers": ["blobs/" + layer["digest"].replace(":", "/")]}]
    layout.files["index.json"] = (encode(index), 0o644)
    layout.files["manifest.json"] = (encode(docker), 0o644)
    return layout, manifest, layer


def main():
    options = arguments()
    try:
        epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
        repository, _, tag = options.name.rpartition(":")
        if not repository or not tag or "/" in tag:
            raise Refused(f"--name {options.name}: must be REPOSITORY:TAG")
        files = contents(options)
        if options.entrypoint not in files:
            raise Refused(f"--entrypoint {options.entrypoint}: is not among the files")
        layout, manifest, layer = image(options, files, epoch)
        if options.limit_bytes is not None and layer["size"] > options.limit_bytes:
            raise Refused(f"{options.name}: {layer['size']} bytes compressed, more than the limit {options.limit_bytes}")
    except Refused as refused:
        sys.exit(f"oci_image: {refused}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(tar(layout.files, epoch))
    print(f"{options.output}: {options.name}@{manifest['digest']}, {layer['size']} bytes compressed")


if __name__ == "__main__":
    main()
