# shellcheck shell=bash
# How the scripts here speak: one line when a step begins, one when it has ended, with the time if it took any.

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  _bold=$'\e[1m' _red=$'\e[31m' _green=$'\e[32m' _off=$'\e[0m'
else
  _bold='' _red='' _green='' _off=''
fi

say()  { printf '%s==>%s %s\n' "$_bold" "$_off" "$*"; }
die()  { printf '%serror:%s %s\n' "$_red" "$_off" "$*" >&2; exit 1; }

# "47 s", "3 min 05 s"
duration() {
  if [ "$1" -lt 60 ]; then printf '%d s' "$1"; else printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); fi
}

# version_at_least 22.23.3 22.12
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
