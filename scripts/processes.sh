# Running programs for a while, for the scripts that start several: sourced, not run. `name` is what messages begin with.

pids=()

say() { printf '%s\n' "$name: $*"; }

# Whether an address accepts connections.
answers() { (exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null; }

# Stops unless all addresses are free.
require_free() {
    local hint="$1" address
    shift
    for address in "$@"; do
        if answers "$address"; then
            say "$address is in use; $hint"
            exit 1
        fi
    done
}

# Waits until an address accepts connections, as long as the process lives.
await() {
    local what="$1" address="$2" pid="$3" log="$4"
    for _ in $(seq 600); do
        if answers "$address"; then return 0; fi
        if ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.05
    done
    say "$what did not start:"
    tail -n 20 "$log"
    exit 1
}

# Ends all programs of `pids`, the last one first: the gateway before what it needs.
end_all() {
    local i
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -TERM "${pids[$i]}" 2>/dev/null || true
        wait "${pids[$i]}" 2>/dev/null || true
    done
}
