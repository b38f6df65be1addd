#!/bin/sh
# Runs the tests on the servers of a newer Debian suite, which it installs into a folder.
#
#   tests/newer-servers.sh trixie            RabbitMQ 4.0 with Postgres 17
#   tests/newer-servers.sh sid store::       RabbitMQ 4.3 with Postgres 18; the arguments go to the tests
#
# It needs Linux with Debian's packages, root (for chroot, mounts and namespaces) and debootstrap. Its ports are
# those of the compose file plus 27, save for the management API, which is on 15672. The folder is
# /var/tmp/dispatch-servers-SUITE; it stays, so that a second run starts at once. Remove it by hand.
set -eu

suite=${1:?"expected a suite, trixie or sid; use: $0 trixie [TEST...]"}
shift
root=/var/tmp/dispatch-servers-$suite
postgres_port=5459
rabbitmq_port=5699

fail() {
    echo "$0: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "expected root, got $(id -un); use sudo"
for program in debootstrap unshare flock curl cargo; do
    command -v "$program" >/dev/null || fail "$program is missing; install it, or add it to PATH"
done

# In namespaces of its own, every process and mount ends with this script, however it ends.
if [ -z "${DISPATCH_IN_NAMESPACE-}" ]; then
    export DISPATCH_IN_NAMESPACE=1
    exec unshare --mount --pid --fork --kill-child --mount-proc "$0" "$suite" "$@"
fi
unset DISPATCH_IN_NAMESPACE
trap 'exit 130' HUP INT TERM

# The ports are the same for every suite.
exec 9>/var/tmp/dispatch-servers.lock
flock --nonblock 9 || fail "another run uses the ports; wait for its end"

# The mirror of this machine's own sources of packages.
mirror() {
    sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\).*/\2/p' \
        /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | head -n 1
}

if [ ! -e "$root/installed" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase --include=rabbitmq-server,postgresql "$suite" "$root" "$(mirror)"
    touch "$root/installed"
fi

within() {
    user=$1
    shift
    chroot --userspec="$user:$user" "$root" "$@"
}

data=/var/lib/dispatch-tests
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

rm -rf "${root:?}$data"
mkdir -p "$root$data/postgres" "$root$data/rabbitmq"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
chroot "$root" chown postgres:postgres "$data/postgres"
printf '%s\n' "$password" >"$root$data/password"
bin=$(cd "$root" && ls -d usr/lib/postgresql/*/bin | tail -n 1)
within postgres "/$bin/initdb" -D "$data/postgres/data" -U postgres --pwfile="$data/password" \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 >/dev/null
chroot --userspec=postgres:postgres "$root" "/$bin/postgres" -D "$data/postgres/data" \
    -c port=$postgres_port -c listen_addresses=127.0.0.1 -c unix_socket_directories="$data/postgres" \
    -c max_connections=600 >"$root$data/postgres.log" 2>&1 &

printf '[rabbitmq_management].\n' >"$root$data/rabbitmq/plugins"
cat >"$root$data/rabbitmq/rabbitmq.conf" <<EOF
listeners.tcp.1 = 127.0.0.1:$rabbitmq_port
management.tcp.ip = 127.0.0.1
management.tcp.port = 15672
default_user = tester
default_pass = $password
vm_memory_high_watermark.absolute = 4GB
disk_free_limit.absolute = 100MB
management_agent.disable_metrics_collector = true
management.disable_stats = true
management.enable_queue_totals = true
EOF
chroot "$root" chown -R rabbitmq:rabbitmq "$data/rabbitmq"
chroot --userspec=rabbitmq:rabbitmq "$root" env HOME="$data/rabbitmq" \
    RABBITMQ_NODENAME=dispatch-tests@localhost RABBITMQ_DIST_PORT=25699 \
    ERL_EPMD_PORT=4399 ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_MNESIA_BASE="$data/rabbitmq/mnesia" RABBITMQ_LOG_BASE="$data/rabbitmq/log" \
    RABBITMQ_CONFIG_FILE="$data/rabbitmq/rabbitmq.conf" \
    RABBITMQ_ENABLED_PLUGINS_FILE="$data/rabbitmq/plugins" \
    /usr/lib/rabbitmq/bin/rabbitmq-server >"$root$data/rabbitmq.log" 2>&1 &

# Both must answer within a minute: Postgres, and RabbitMQ's management API, which starts last.
tries=120
until within postgres "/$bin/pg_isready" -q -h 127.0.0.1 -p $postgres_port &&
    curl --silent --fail --noproxy '*' --user "tester:$password" \
        http://127.0.0.1:15672/api/overview >"$root$data/overview.json"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || fail "the servers do not answer; see $root$data/postgres.log and rabbitmq.log"
    sleep 0.5
done
within postgres "/$bin/postgres" --version
sed -n 's/.*"rabbitmq_version":"\([^"]*\)".*/RabbitMQ \1/p' "$root$data/overview.json"

export DISPATCH_TEST_DATABASE_URL="postgres://postgres:$password@127.0.0.1:$postgres_port/postgres"
export DISPATCH_TEST_AMQP_URL="amqp://tester:$password@127.0.0.1:$rabbitmq_port/%2f"
# In the background, so that a signal ends the script at once.
cargo test --no-fail-fast -- "$@" &
wait $!
