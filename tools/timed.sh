#!/usr/bin/env bash
# Run a suite and print its time: timed.sh NAME COMMAND [ARG ...]
name=$1; shift
start=$SECONDS
"$@"; status=$?
echo "suite $name: $((SECONDS - start)) s, exit $status"
exit $status
