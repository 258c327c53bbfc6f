#!/usr/bin/env bash
# Installs the server packages that the tests start for themselves, where they are missing and where it may: as root on
# a Debian machine. Elsewhere it says which tests will be skipped. The packages' own services are kept from starting.
set -euo pipefail

found() {
    case $1 in
        postgresql) compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null ;;
        *) command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] ;;
    esac
}

missing=()
for package in redis-server postgresql rabbitmq-server; do
    found "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Not root on Debian, so not installed: ${missing[*]}. The tests that need them will be skipped."
    exit 0
fi

echo "Installing with apt-get, for the tests: ${missing[*]} (their services will not be started)"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null; }
if ! { apt-get update -qq </dev/null && install; }; then
    echo "apt-get could not install ${missing[*]}. The tests that need them will be skipped."
fi
