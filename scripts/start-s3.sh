#!/usr/bin/env bash
# scripts/start-s3.sh FOLDER PORT
#
# Becomes an S3 server on 127.0.0.1:PORT with its data in FOLDER, which is made
# when it is not there: a bucket is a folder in it, made by CreateBucket or by
# mkdir. Requests are path-style, and signed with the keys below, in any region.
# A bucket's name has three letters at least. scripts/services.sh installs it.
#
# A conditional put looks first and writes then: of several at the same moment
# more than one may succeed. A put into a bucket that is not there makes it.
#
# This process is the server, and has no other.
set -euo pipefail
usage="usage: scripts/start-s3.sh FOLDER PORT"
folder=${1:?"$usage"}
port=${2:?"$usage"}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
if [ ! -f "$DATA_DIR/services/s3.done" ]; then
    say "the S3 server is not installed; run scripts/services.sh"
    exit 1
fi

exec "$DATA_DIR/services/s3/bin/s3s-fs" --host 127.0.0.1 --port "$port" \
    --access-key tenantry --secret-key tenantry-secret "$folder" </dev/null
