#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The examples of the man pages and of README.md: takes each program out of its
# page, compiles it with all warnings against the library as it was built, runs
# it, and holds what it prints against what the page says it prints. Speaks TAP.
#
# usage: tests/examples.sh
# In a page a comment before a display says what it is:
#	.\" program NAME		a program; it is run with the argument data,
#					in a directory with a file of that name
#	.\" output			what the last program prints
#	.\" output, figures vary	the same, with other numbers
#	.\" shell			commands for sh
# GYRE_TEST_CC, GYRE_TEST_CFLAGS, GYRE_TEST_LDFLAGS, GYRE_TEST_LIBS and
# GYRE_TEST_LIBTOOL say how to compile and link; make check sets them.
set -u
LC_ALL=C
export LC_ALL

root=${GYRE_TEST_SRCDIR:-$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)}
build=${GYRE_TEST_BUILDDIR:-$root/build}
cc=${GYRE_TEST_CC:-cc}
libtool=${GYRE_TEST_LIBTOOL:-$build/libtool}

# A program that hangs is a failure, not a wait.
patience=120

number=0
failed=0

# report OK? TEXT [FILE]: one TAP line; where it is not ok, FILE's as comments.
report()
{
	number=$((number + 1))
	if [ "$1" = ok ]; then
		echo "ok $number - $2"
	else
		failed=$((failed + 1))
		echo "not ok $number - $2"
		[ $# -lt 3 ] || sed 's/^/# /' "$3"
	fi
}

skip()
{
	number=$((number + 1))
	echo "ok $number - $1 # SKIP $2"
}

# extract DIR FILE...: the displays of the files, each as a file in DIR, and in
# DIR/index a line for each: KIND FILE NAME PAGE.
extract()
{
	dir=$1
	shift
	mkdir -p "$dir"
	: >"$dir/index"
	awk -v dir="$dir" '
	function open(what, as)
	{
		count++
		out = dir "/" count ".text"
		printf "" >out
		kind = what
		name = as
		first = 1
	}
	function shut()
	{
		close(out)
		print kind, out, name, page >(dir "/index")
		kind = ""
	}
	function plain(line)
	{
		gsub(/\\\(aq/, "\047", line)
		gsub(/\\\(ga/, "`", line)
		gsub(/\\\(ha/, "^", line)
		gsub(/\\\(ti/, "~", line)
		gsub(/\\-/, "-", line)
		gsub(/\\&/, "", line)
		gsub(/\\e/, "\\", line)
		return line
	}
	FNR == 1 {
		page = FILENAME
		sub(/.*\//, "", page)
		markdown = page ~ /\.md$/
		mark = kind = ""
		examples = 0
	}
	markdown {
		if ($0 == "```c") {
			open("program", page "-" FNR)
		} else if ($0 == "```" && kind != "") {
			if (!is_program)
				kind = "fragment"
			shut()
		} else if (kind != "") {
			if (first)
				is_program = $0 ~ /^#include/
			first = 0
			print >out
		}
		next
	}
	/^\.Sh / {
		examples = $0 == ".Sh EXAMPLES"
	}
	/^\.\\" (program|output|shell)/ {
		mark = $2
		sub(/,/, "", mark)
		rest = $0
		sub(/^\.\\" [a-z]*/, "", rest)
		next
	}
	/^\.Bd / && kind == "" {
		if (mark == "program")
			open(mark, marked(rest))
		else if (mark == "output")
			open(mark, rest ~ /^, figures vary$/ ? "varies" : rest == "" ? "exact" : "what:" FNR)
		else if (mark == "shell")
			open(mark, FNR)
		else if (examples)
			open("unmarked", FNR)
		mark = ""
		next
	}
	/^\.Ed/ && kind != "" {
		shut()
		next
	}
	kind != "" {
		print plain($0) >out
	}
	function marked(text)
	{
		gsub(/[^A-Za-z0-9_-]/, "", text)
		return text
	}' "$@"
}

# compiled NAME: makes $scratch/run/NAME/NAME of $scratch/run/NAME/NAME.c.
compiled()
{
	# shellcheck disable=SC2086 # flags are words
	$cc -I"$root/lib/include" ${GYRE_TEST_CFLAGS:-} -Wall -Wextra -Werror \
		-c -o "$1.o" "$1.c" >"$scratch/log" 2>&1 &&
	"$libtool" --silent --tag=CC --mode=link $cc ${GYRE_TEST_CFLAGS:-} ${GYRE_TEST_LDFLAGS:-} \
		-no-install -o "$1" "$1.o" "$build/libgyre.la" \
		${GYRE_TEST_LIBS:--luring} -lpthread >>"$scratch/log" 2>&1
}

# A directory to run in, and in it a file to work on.
enter()
{
	mkdir -p "$scratch/run/$1" && cd "$scratch/run/$1" || exit 2
	awk 'BEGIN { for (i = 1; i <= 2000; i++) print i }' >data
}

has_io_uring()
{
	enter gyre-probe
	printf '%s\n' '#include <gyre.h>' 'int main(void)' '{' '	struct gyre *rt;' \
		'	enum gyre_status status = gyre_open(NULL, &rt);' \
		'	if (status == GYRE_OK)' '		gyre_free(rt);' \
		'	return status == GYRE_UNSUPPORTED ? 77 : 0;' '}' >gyre-probe.c
	compiled gyre-probe || {
		report bad "a program with gyre.h compiles" "$scratch/log"
		return 0
	}
	./gyre-probe
	[ $? -ne 77 ]
}

run_program()
{
	enter "$2"
	if [ -e "$2.c" ]; then
		report bad "$3: there is one program called $2"
		return
	fi
	cp "$1" "$2.c"
	printed=
	if ! compiled "$2"; then
		report bad "$3: $2 compiles" "$scratch/log"
	elif [ "$can_run" = no ]; then
		skip "$3: $2 runs" "io_uring is refused here"
	elif timeout "$patience" "./$2" data >out 2>err; then
		report ok "$3: $2 compiles and runs"
		printed=$scratch/run/$2/out
	else
		echo "it ended with status $?" >>err
		report bad "$3: $2 runs" err
	fi
}

# figures FILE: with a 0 for each number, however wide.
figures()
{
	sed 's/[0-9][0-9]*/0/g; s/  */ /g' "$1"
}

check_output()
{
	case $2 in
	exact) cp "$1" "$scratch/wanted" && cp "$printed" "$scratch/got" ;;
	varies) figures "$1" >"$scratch/wanted" && figures "$printed" >"$scratch/got" ;;
	esac
	if diff -u "$scratch/wanted" "$scratch/got" >"$scratch/diff"; then
		report ok "$3: it prints what the page says"
	else
		report bad "$3: it prints what the page says" "$scratch/diff"
	fi
}

# Commands as the page has them, but that a benchmark is over at once.
run_shell()
{
	if [ ! -x "$build/gyre-bench" ] || [ ! -x "$build/gyre-probe" ]; then
		skip "$3: the commands at line $2 run" "the tools were not built"
		return
	fi
	if [ "$can_run" = no ]; then
		skip "$3: the commands at line $2 run" "io_uring is refused here"
		return
	fi
	enter "shell-$2"
	mkdir bin
	cat >bin/gyre-bench <<TXT
#!/bin/sh
case \$* in
*--work* | *data*) ;;
*--from* | *--compare*) exec '$build/gyre-bench' "\$@" ;;
*) set -- "\$@" --size 4M ;;
esac
exec '$build/gyre-bench' "\$@" --time 0.02 --warmup 0 --rounds 1 --quiet
TXT
	printf '%s\n' '#!/bin/sh' "exec '$build/gyre-probe' \"\$@\"" >bin/gyre-probe
	chmod +x bin/gyre-bench bin/gyre-probe
	if PATH=$PWD/bin:$PATH TMPDIR=$PWD timeout "$patience" sh -e "$1" >log 2>&1; then
		report ok "$3: the commands at line $2 run"
	else
		report bad "$3: the commands at line $2 run" log
	fi
}

# try DIR: each display of the index, in order.
try()
{
	programs=0
	printed=
	while read -r kind file name page; do
		case $kind in
		program)
			programs=$((programs + 1))
			run_program "$file" "$name" "$page"
			;;
		output)
			[ "$can_run" = no ] || [ -z "$printed" ] || check_output "$file" "$name" "$page"
			;;
		shell) run_shell "$file" "$name" "$page" ;;
		unmarked) report bad "$page: a comment says what the display at line $name is" ;;
		esac
	done <"$1/index"
	[ "$programs" -gt 0 ] || report bad "there are programs in the pages"
}

# ----------------------------------------------------------- the self-test

# found HOW MANY TEXT: the page in self.3 has so many failures.
found()
{
	rm -rf "$scratch/self" "$scratch/run"
	got=$(
		extract "$scratch/self" "$scratch/self.3"
		try "$scratch/self" | grep -c '^not ok'
	)
	if [ "$got" -eq "$1" ]; then
		report ok "self-test: $2"
	else
		report bad "self-test: $2: $got failures, not $1"
	fi
	rm -rf "$scratch/run"
}

# page PROGRAM OUTPUT [MARK [EDIT]]: writes self.3, and lets sed change it.
page()
{
	printf '%s\n' '.Sh EXAMPLES' '.\" program self' '.Bd -literal' '#include <stdio.h>' \
		"int main(void) { $1 }" '.Ed' ".\\\" output${3:-}" '.Bd -literal' "$2" '.Ed' |
		sed "${4:-}" >"$scratch/self.3"
}

self_test()
{
	page 'puts("a\e\e\-\(aqb 1");' '\&a\e\-\(aqb 1'
	found 0 "a page that is true passes"
	page 'int unused; puts("a");' a
	found 1 "a warning"
	page 'puts("a");' a '' '/output/d'
	found 1 "a display without a mark"
	page 'puts("a");' a '' 's/program self/output/'
	found 1 "a page without a program"
	[ "$can_run" = yes ] || return
	page 'return 1;' a
	found 1 "a program that fails"
	page 'puts("a");' b
	found 1 "a program that prints something else"
	page 'puts("a 12");' 'a  7' ', figures vary'
	found 0 "other figures, where they may vary"
	page 'puts("a 12");' 'b 12' ', figures vary'
	found 1 "other words, where figures may vary"
}

# -------------------------------------------------------------------- main

[ -f "$build/libgyre.la" ] || {
	echo "Bail out! there is no library in $build"
	exit 2
}
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 2' HUP INT TERM

if has_io_uring; then can_run=yes; else can_run=no; fi
self_test
extract "$scratch/pages" "$root"/man/*.[1-9] "$root/README.md"
try "$scratch/pages"
echo "1..$number"
[ "$failed" -eq 0 ]
