#!/usr/bin/env bash
# scripts/start-prometheus.sh FOLDER PORT TARGET
#
# Becomes a Prometheus on 127.0.0.1:PORT that scrapes TARGET (host:port) every
# second and evaluates our rules as often, with its files in FOLDER, which is
# made when it is not there. scripts/services.sh installs it, or PROMETHEUS
# names one.
#
# This process is the server. SIGINT and SIGTERM end it.
set -euo pipefail
usage="usage: scripts/start-prometheus.sh FOLDER PORT TARGET"
folder=${1:?"$usage"}
port=${2:?"$usage"}
target=${3:?"$usage"}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
server=${PROMETHEUS:-$DATA_DIR/services/prometheus/prometheus}
if ! command -v "$server" >/dev/null; then
    say "no Prometheus is installed; run scripts/services.sh, or name one as PROMETHEUS"
    exit 1
fi
cat >"$folder/prometheus.yml" <<END
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files:
  - $PWD/deploy/prometheus/rules/*.yml
scrape_configs:
  - job_name: tenantry
    static_configs:
      - targets: ["$target"]
END
exec "$server" --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/data" \
    --enable-feature=exemplar-storage --web.listen-address="127.0.0.1:$port" --log.level=warn </dev/null
