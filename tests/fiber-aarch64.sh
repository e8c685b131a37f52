#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The fibers of aarch64, tested on any machine: tests/test-fiber.c as a static
# program without the library, built by a cross compiler and run by qemu. Twice,
# on a CPU that signs return addresses and on one that does not. Speaks TAP.
#
# usage: tests/fiber-aarch64.sh
# AARCH64_CC and QEMU_AARCH64 name other compilers and emulators.
set -u

cc=${AARCH64_CC:-aarch64-linux-gnu-gcc}
qemu=${QEMU_AARCH64:-qemu-aarch64-static}
tree=${GYRE_TEST_SRCDIR:-$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)}

# Words, not one name: a compiler may come with flags.
for tool in "$cc" "$qemu"; do
	command -v "${tool%% *}" >/dev/null 2>&1 || {
		echo "1..0 # SKIP ${tool%% *} is missing: the fibers of aarch64 stay untested"
		exit 0
	}
done

scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 2' HUP INT TERM

# shellcheck disable=SC2086 # the compiler may have flags
build()
{
	$cc -std=gnu11 -O2 -g -Wall -Wextra -Werror -mbranch-protection=standard -static -pthread \
		-D_GNU_SOURCE= -DTEST_FIBER_ALONE -I"$tree" -I"$tree/lib/include" "$@" \
		"$tree/tests/test-fiber.c" "$tree/workers/fiber.c" \
		"$tree/workers/fiber_aarch64.S" "$tree/workers/fiber_x86_64.S" \
		>"$scratch/log" 2>&1
}

number=0
failed=0

# run TEXT PROGRAM CPU: the program's TAP, renumbered and told apart by TEXT.
run()
{
	# shellcheck disable=SC2086 # the emulator may have flags
	$qemu -cpu "$3" "$2" >"$scratch/out" 2>"$scratch/err"
	status=$?
	while IFS= read -r line; do
		case $line in
		"ok "* | "not ok "*)
			number=$((number + 1))
			echo "${line%%ok *}ok $number - $1: ${line#* - }"
			case $line in not*) failed=$((failed + 1)) ;; esac
			;;
		"# "*) echo "$line" ;;
		esac
	done <"$scratch/out"
	number=$((number + 1))
	if [ "$status" -eq 0 ] && grep -q '^1\.\.[1-9]' "$scratch/out"; then
		echo "ok $number - $1: came to its end"
	else
		failed=$((failed + 1))
		echo "not ok $number - $1: ended with status $status"
		sed 's/^/# /' "$scratch/err"
	fi
}

# try TEXT CPU FLAG...: builds with the flags, and runs.
try()
{
	text=$1
	cpu=$2
	shift 2
	if build -o "$scratch/test-fiber" "$@"; then
		run "$text" "$scratch/test-fiber" "$cpu"
	else
		number=$((number + 1))
		failed=$((failed + 1))
		echo "not ok $number - $text: builds"
		sed 's/^/# /' "$scratch/log"
	fi
}

try "signed returns" max
try "unsigned returns" cortex-a53
try "ucontext" max -DGYRE_FIBER_UCONTEXT
echo "1..$number"
[ "$failed" -eq 0 ]
