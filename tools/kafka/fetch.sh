#!/usr/bin/env bash
# Fetch the jars of Apache Kafka once, into a cache outside the checkout; prints their folder. Installs Java and Maven
# on a bare Debian. With TOUCHFOLD_TEST_KAFKA=host:port most tests use a broker that runs already; those that kill
# brokers still start their own.
set -euo pipefail
cd "$(dirname "$0")"
version=$(sed -n 's/.*kafka_2.13<\/artifactId><version>\([^<]*\).*/\1/p' pom.xml)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/touchfold/kafka-$version-$(sha256sum pom.xml | cut -c1-8)
if [ ! -f "$cache/complete" ]; then
  missing=()
  command -v java >/dev/null || missing+=(default-jre-headless)
  command -v mvn >/dev/null || missing+=(maven)
  if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
      echo "the Kafka tests need ${missing[*]}: install them, or set TOUCHFOLD_TEST_KAFKA=host:port" >&2; exit 1
    fi
    { apt-get update -q && apt-get install -y -q "${missing[@]}"; } >&2
  fi
  making=$cache.making.$$
  for try in 1 2 3; do  # a registry may stumble
    rm -rf "$making"
    if mvn -q -B -f pom.xml dependency:copy-dependencies -DoutputDirectory="$making" >&2; then break; fi
    [ $try = 3 ] && { echo "Maven could not fetch Kafka's jars" >&2; exit 1; }
  done
  touch "$making/complete"
  rm -rf "$cache"
  mkdir -p "$(dirname "$cache")"
  mv "$making" "$cache"
fi
echo "$cache"
