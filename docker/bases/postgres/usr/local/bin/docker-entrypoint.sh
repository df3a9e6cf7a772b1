#!/bin/sh
# What the official image's script does for those who set POSTGRES_USER, POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, and
# POSTGRES_DB: makes the database in $PGDATA when there is none yet, then becomes the server.
set -eu

fail() {
    echo "error: $1" >&2
    exit 1
}

if [ "$1" = postgres ] && [ ! -e "$PGDATA" ]; then
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    password=${POSTGRES_PASSWORD:-}
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        [ -z "$password" ] || fail "both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set: choose one"
        password=$(cat "$POSTGRES_PASSWORD_FILE")
    fi
    [ -n "$password" ] || fail "the new database needs a password: set POSTGRES_PASSWORD_FILE, or POSTGRES_PASSWORD"

    # It takes its place when it is whole: a first start that is cut short leaves no half of a database.
    rm -rf "$PGDATA.new"
    printf '%s\n' "$password" | initdb --pgdata="$PGDATA.new" --username="$user" --pwfile=/dev/stdin \
        --encoding=UTF8 --auth-local=trust --auth-host=scram-sha-256
    echo "host all all all scram-sha-256" >>"$PGDATA.new/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA.new/postgresql.conf"
    if [ "$database" != postgres ]; then
        quoted=$(printf '%s' "$database" | sed 's/"/""/g')
        echo "CREATE DATABASE \"$quoted\"" | postgres --single -D "$PGDATA.new" postgres >/dev/null
    fi
    mv "$PGDATA.new" "$PGDATA"
fi
unset POSTGRES_PASSWORD
exec "$@"
