#!/usr/bin/env bash
# Builds the images of the proxy and of the control plane, each an OCI archive: no daemon, no root, no base image. The same
# commit, toolchain and system packages give the same digests.
#
#   scripts/build-images.sh [FOLDER]      writes FOLDER/outrigger-proxy.tar and FOLDER/outrigger-control-plane.tar
#                                         (default: target/images)
#   IMAGE_TAG        tag of both (default: the workspace's version)
#   IMAGE_REGISTRY   put before both names, for example registry.example.com/mesh
#   BINARIES         folder with the three programs, static and stripped; they are not built then
#
# Load one: podman load -i FILE, docker load -i FILE, kind load image-archive FILE, or skopeo copy oci-archive:FILE ...
set -euo pipefail
cd "$(dirname "$0")/.."

# Of the whole image, compressed.
readonly LIMIT_BYTES=$((15 * 1000 * 1000))

folder=${1:-target/images}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
tag=${IMAGE_TAG:-$version}
registry=${IMAGE_REGISTRY:+${IMAGE_REGISTRY%/}/}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

build() {
    local host home
    host=$(rustc -vV | sed -n 's/^host: //p')
    home=${CARGO_HOME:-$HOME/.cargo}
    # No path of this machine in the programs: from Rust, and from the C code of the crypto library.
    export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=/outrigger --remap-path-prefix=$home=/cargo"
    export CFLAGS="-ffile-prefix-map=$PWD=/outrigger -ffile-prefix-map=$home=/cargo"
    # With a target named, the flags are for the programs alone: procedural macros cannot be static.
    cargo build --release --locked --target "$host" --target-dir target/static \
        --config 'profile.release.strip="symbols"' -p outrigger -p outrigger-proxy -p outrigger-control-plane
    binaries=target/static/$host/release
}

# image NAME DESCRIPTION ARGUMENTS...
image() {
    local name=$1 description=$2
    shift 2
    scripts/oci_image.py --output "$folder/$name.tar" --name "$registry$name:$tag" --limit-bytes "$LIMIT_BYTES" \
        --file "$binaries/$name=/usr/bin/$name" --file LICENSE=/usr/share/doc/outrigger/LICENSE \
        --entrypoint "/usr/bin/$name" --user 1337:1337 \
        --label "org.opencontainers.image.title=$name" --label "org.opencontainers.image.description=$description" \
        --label "org.opencontainers.image.version=$version" --label org.opencontainers.image.licenses=Apache-2.0 \
        --label "org.opencontainers.image.revision=$(git rev-parse HEAD)" "$@"
}

binaries=${BINARIES:-}
[ -n "$binaries" ] || build

# The allocator gives memory back at once: what a large update of the configuration needed for a moment is not kept.
image outrigger-proxy 'The sidecar of Outrigger, a service mesh' --env MIMALLOC_PURGE_DELAY=0
image outrigger-control-plane 'The control plane of Outrigger, a service mesh' \
    --file "$binaries/outrigger=/usr/bin/outrigger"
