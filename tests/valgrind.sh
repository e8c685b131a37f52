#!/bin/sh
# SPDX-License-Identifier: MIT
#
# A program runs under valgrind, where threads take turns: a caller, a worker, a
# task and a helper wait for each other. Speaks TAP.
#
# usage: tests/valgrind.sh, as make check calls it
set -u

build=${GYRE_TEST_BUILDDIR:-.}
tree=${GYRE_TEST_SRCDIR:-..}

skip()
{
	echo "1..0 # SKIP $1"
	exit 0
}

command -v valgrind >/dev/null 2>&1 || skip "valgrind is missing"
[ -f /usr/include/valgrind/valgrind.h ] || skip "the library was built without valgrind's header"
[ -f "$build/.libs/libgyre.so" ] || skip "there is no shared library"
case ${GYRE_TEST_CFLAGS:-} in
*-fsanitize*) skip "not beside a sanitizer" ;;
esac

scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT

cat >"$scratch/x.c" <<'PROGRAM'
#include <gyre.h>

static int six(void *arg)
{
	return arg ? 6 : 0;
}

static int job(void *arg)
{
	struct gyre_task *task;
	int joined = 0, offloaded = 0;

	if (gyre_go(six, arg, &task) || gyre_sleep(1000000) || gyre_join(task, &joined) ||
	    gyre_offload(NULL, six, arg, &offloaded))
		return 0;
	return joined + offloaded;
}

int main(void)
{
	struct gyre *rt;
	int result = 0;

	if (gyre_open(NULL, &rt) || gyre_block_on(rt, job, &rt, NULL, &result))
		return 1;
	gyre_free(rt);
	return result != 12;
}
PROGRAM

# Without what is for debuggers: valgrind gives up where that is newer than itself.
cp "$build/.libs/libgyre.so" "$scratch/libgyre.so.0" && ln -s libgyre.so.0 "$scratch/libgyre.so" &&
	strip --strip-debug "$scratch/libgyre.so.0" || exit 2

echo 1..1
# shellcheck disable=SC2086 # flags are words
if ${GYRE_TEST_CC:-cc} ${GYRE_TEST_CFLAGS:-} -I"$tree/lib/include" "$scratch/x.c" -o "$scratch/x" \
		${GYRE_TEST_LDFLAGS:-} -s -L"$scratch" -Wl,-rpath,"$scratch" -lgyre \
		>"$scratch/log" 2>&1 &&
	timeout -s KILL 60 valgrind -q --leak-check=full --error-exitcode=9 "$scratch/x" \
		>>"$scratch/log" 2>&1; then
	echo "ok 1 - a job with a task and a helper ends, and is clean"
else
	echo "not ok 1 - a job with a task and a helper ends, and is clean"
	sed 's/^/# /' "$scratch/log"
	exit 1
fi
