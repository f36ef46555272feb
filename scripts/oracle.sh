#!/usr/bin/env bash
# Compares the ids of every tokenizer on board with those of other engines: see crates/meter/oracle.
#
#   scripts/oracle.sh [MEGABYTES [NAME|FILE...]]
#
# 210 MB by default: manuals, documents, message catalogues and character maps of this system, the rest generated.
# Files are published tokenizers, which are loaded as an operator's would be and compared with their own library:
#   NAME.json                 Hugging Face's tokenizer.json or Mistral's tekken.json
#   NAME.PATTERN.tiktoken     a rank file and how it splits (o200k, llama3, qwen2, qwen3.5, kimi, gpt2; "+nfc" behind it)
#   onboard.NAME.json         the model's own file for the tokenizer on board of that name
# TOLLGATE_TOKENIZERS, a folder of such files, stands for all of them.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
program="${CARGO_TARGET_DIR:-$root/target}/fast/oracle"
cargo build --quiet -p tollgate-meter-oracle --profile fast --bin oracle

megabytes="${1:-210}"
shift || true
files=("$@")
if [ "${#files[@]}" -eq 0 ] && [ -n "${TOLLGATE_TOKENIZERS:-}" ]; then
    "$program" "$megabytes"
    files=("$TOLLGATE_TOKENIZERS"/*)
fi
exec "$program" "$megabytes" "${files[@]}"
