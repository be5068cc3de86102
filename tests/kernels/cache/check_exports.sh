#!/usr/bin/env bash
# check_exports.sh NM LIBRARY HEADER: the library exports exactly the functions
# that the header declares.
set -euo pipefail
nm=$1 library=$2 header=$3

exported=$("$nm" -D --defined-only "$library" | awk '$2 != "A" {print $3}' | sort -u)
declared=$(grep -o '\brq_kv_[a-z0-9_]*(' "$header" | tr -d '(' | sort -u)
# Mentions in comments, such as rq_kv_abi_version(), are declared functions too.
if ! difference=$(diff <(echo "$declared") <(echo "$exported")); then
  printf 'declared (<) and exported (>) functions differ:\n%s\n' "$difference" >&2
  exit 1
fi
echo "$(wc -l <<<"$exported") functions, all declared"
