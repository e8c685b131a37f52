#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What is installed works on its own: README's program and examples/first, found
# by pkg-config and nothing else, built in each way that users build, and run.
# Speaks TAP. Ends with 77 when all was built, but io_uring is forbidden here.
#
# usage: tests/installed.sh [--probe]     --probe: only that last question
#
# The environment: CC, CXX, CFLAGS, CXXFLAGS, LDFLAGS; PKG_CONFIG and
# PKG_CONFIG_PATH for what is not installed in /usr; DESTDIR for what is on its
# way there.
set -u
LC_ALL=C
export LC_ALL
: "${CC:=cc}" "${CXX:=c++}" "${CFLAGS=-O2}" "${CXXFLAGS=-O2}" "${LDFLAGS=}"
: "${PKG_CONFIG:=pkg-config}"
export CC CXX CFLAGS CXXFLAGS LDFLAGS PKG_CONFIG

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 2' HUP INT TERM
number=0
failed=0
forbidden=no

ok()
{
	number=$((number + 1))
	echo "ok $number - $1"
}

not_ok()
{
	number=$((number + 1))
	failed=$((failed + 1))
	echo "not ok $number - $1"
	sed 's/^/# /' "$scratch/said"
}

skip()
{
	number=$((number + 1))
	echo "ok $number - $1 # SKIP $2"
}

# report WHAT COMMAND...
report()
{
	what=$1
	shift
	if "$@" >"$scratch/said" 2>&1; then
		ok "$what"
	else
		not_ok "$what"
		return 1
	fi
}

# pkg [--static] --libs and so on, of what a program with closures needs.
pkg()
{
	"$PKG_CONFIG" "$@" libgyre liburing
}

# says_it PROGRAM: it does what README says that it does.
says_it()
{
	LD_LIBRARY_PATH="$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" \
		"$1" "$root/LICENSE" >"$scratch/lines" 2>&1
	printf 'read: 64\ncall: OK, fdatasync: 0\n' | diff - "$scratch/lines"
}

# is_linked with|without PROGRAM: asks for a libgyre.so, or has it inside.
is_linked()
{
	if readelf -d "$2" | grep -q 'NEEDED.*libgyre'; then
		[ "$1" = with ]
	else
		[ "$1" = without ]
	fi
}

# way NAME with|without PROGRAM COMMAND...: the command makes the program.
way()
{
	name=$1 how=$2 program=$3
	shift 3
	report "$name: is built" "$@" || return
	report "$name: is linked $how libgyre.so" is_linked "$how" "$program" || return
	if [ "$forbidden" = yes ]; then
		skip "$name: runs" "io_uring is forbidden here"
	else
		report "$name: runs" says_it "$program"
	fi
}

# ------------------------------------------------------------ compilers

# shellcheck disable=SC2046,SC2086 # flags are words
by_c()
{
	way "C, shared" with "$scratch/c" \
		$CC -std=gnu11 -Wall -Wextra -Werror $CFLAGS $LDFLAGS -o "$scratch/c" "$source" \
		$(pkg --cflags --libs)
	way "C, static" without "$scratch/c-static" \
		$CC -std=gnu11 -static $CFLAGS $LDFLAGS -o "$scratch/c-static" "$source" \
		$(pkg --static --cflags --libs)
	way "C, static library" without "$scratch/c-half" \
		$CC -std=gnu11 $CFLAGS $LDFLAGS -o "$scratch/c-half" "$source" \
		$(pkg --static --cflags --libs | sed 's/-lgyre/-l:libgyre.a/')
}

# shellcheck disable=SC2046,SC2086 # flags are words
by_cxx()
{
	if ! command -v "${CXX%% *}" >/dev/null 2>&1; then
		skip "C++" "there is no $CXX"
		return
	fi
	for std in 11 14 17 20; do
		if ! $CXX -std=c++$std -fsyntax-only -x c++ /dev/null 2>/dev/null; then
			skip "C++$std, shared" "$CXX knows no C++$std"
			continue
		fi
		way "C++$std, shared" with "$scratch/c++$std" \
			$CXX -x c++ -std=c++$std -Wall -Wextra -pedantic -Werror $CXXFLAGS $LDFLAGS \
			-o "$scratch/c++$std" "$source" $(pkg --cflags --libs)
	done
	way "C++11, static" without "$scratch/c++-static" \
		$CXX -x c++ -std=c++11 -static $CXXFLAGS $LDFLAGS -o "$scratch/c++-static" \
		"$source" $(pkg --static --cflags --libs)
}

# -------------------------------------------------------- build systems

meson_project()
{
	meson setup "$@" "$scratch/meson$1" "$root/examples/first" &&
		meson compile -C "$scratch/meson$1"
}

by_meson()
{
	if ! command -v meson >/dev/null 2>&1; then
		skip "meson" "there is no meson"
		return
	fi
	way "meson, shared" with "$scratch/meson-Dprefer_static=false/first" \
		meson_project -Dprefer_static=false
	way "meson, static" without "$scratch/meson-Dprefer_static=true/first" \
		meson_project -Dprefer_static=true
}

cmake_project()
{
	cmake -S "$root/examples/first" -B "$scratch/cmake" && cmake --build "$scratch/cmake"
}

by_cmake()
{
	if ! command -v cmake >/dev/null 2>&1; then
		skip "CMake" "there is no cmake"
		return
	fi
	way "CMake" with "$scratch/cmake/first" cmake_project
}

# ----------------------------------------------------------------- main

# README's program, which examples/first has with a licence above it.
program_of_readme()
{
	awk '/^```c$/ { on = 1; next } /^```$/ { if (on) exit } on' "$root/README.md"
}

same_program()
{
	program_of_readme >"$scratch/readme.c"
	[ -s "$scratch/readme.c" ] && sed 1d "$root/examples/first/first.c" | diff "$scratch/readme.c" -
}

# shellcheck disable=SC2046,SC2086 # flags are words
probe()
{
	cat >"$scratch/probe.c" <<-'END'
	#include <gyre.h>
	#include <stdio.h>
	int main(void)
	{
		struct gyre *rt;
		enum gyre_status status = gyre_open(NULL, &rt);

		if (status == GYRE_OK)
			gyre_free(rt);
		else
			printf("%s\n", gyre_last_error());
		return status == GYRE_UNSUPPORTED ? 77 : status;
	}
	END
	$CC $CFLAGS $LDFLAGS -o "$scratch/probe" "$scratch/probe.c" \
		$("$PKG_CONFIG" --cflags --libs libgyre) || return
	LD_LIBRARY_PATH="$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$scratch/probe"
	status=$?
	[ "$status" -ne 77 ] || forbidden=yes
	[ "$status" -eq 0 ] || [ "$status" -eq 77 ]
}

source=$root/examples/first/first.c
report "pkg-config knows libgyre" "$PKG_CONFIG" --exists --print-errors libgyre || exit 1
if [ -n "${DESTDIR:-}" ]; then
	# Not by a sysroot: liburing is not there.
	sed "s|^\([a-z_]*\)=/|\1=$DESTDIR/|" \
		"$("$PKG_CONFIG" --variable=pcfiledir libgyre)/libgyre.pc" >"$scratch/libgyre.pc"
	PKG_CONFIG_PATH=$scratch:${PKG_CONFIG_PATH:-}
	export PKG_CONFIG_PATH
	unset DESTDIR
fi
libdir=$("$PKG_CONFIG" --variable=libdir libgyre)
report "README's program is that of examples/first" same_program
report "a program that needs gyre.h alone, and says whether io_uring may be used" probe
[ "$forbidden" = no ] || sed 's/^/# /' "$scratch/said"
if [ "${1:-}" != --probe ]; then
	by_c
	by_cxx
	by_meson
	by_cmake
fi
echo "1..$number"
[ "$failed" -eq 0 ] || exit 1
[ "$forbidden" = no ] || exit 77
