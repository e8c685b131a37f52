#!/bin/sh
# SPDX-License-Identifier: MIT
#
# gyre-probe: what it prints, as text and as JSON, under policies and limits that
# refuse things (tests/jail.c), and on directories that cannot be used. Speaks TAP.
#
# usage: tests/probe.sh [BUILD]
# shellcheck disable=SC2016 # conditions are evaluated by check()
set -u
LC_ALL=C
export LC_ALL

root=${GYRE_TEST_SRCDIR:-$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)}
build=${1:-${GYRE_TEST_BUILDDIR:-$root/build}}
# Past libtool's wrapper, which needs descriptors of its own.
probe=$build/.libs/gyre-probe
[ -x "$probe" ] || probe=$build/gyre-probe
LD_LIBRARY_PATH=$build/.libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
jail=$build/tests/jail

number=0
failed=0

# report OK? TEXT [FILE...]: one TAP line; where it is not ok, the files as comments.
report()
{
	number=$((number + 1))
	if [ "$1" = ok ]; then
		echo "ok $number - $2"
		return
	fi
	failed=$((failed + 1))
	echo "not ok $number - $2"
	shift 2
	for file in "$@"; do
		sed 's/^/# /' "$file"
	done
}

skip()
{
	number=$((number + 1))
	echo "ok $number - $1 # SKIP $2"
}

# run COMMAND...: with three descriptors; leaves status, $scratch/out and $scratch/err.
run()
{
	"$@" </dev/null >"$scratch/out" 2>"$scratch/err"
	status=$?
}

# check TEXT CONDITION...: the last run is as the conditions, commands all, say.
check()
{
	what=$1
	shift
	for condition in "$@"; do
		if ! eval "$condition"; then
			echo "status $status; not true: $condition" >"$scratch/why"
			report bad "$what" "$scratch/why" "$scratch/out" "$scratch/err"
			return
		fi
	done
	report ok "$what"
}

silent()
{
	[ ! -s "$scratch/err" ]
}

says()
{
	grep -q -- "$1" "$scratch/out"
}

# One sentence, and the tool's name before it.
complains()
{
	[ "$(wc -l <"$scratch/err")" -eq 1 ] && grep -q "^gyre-probe: .*$1" "$scratch/err"
}

# json EXPRESSION: the output is JSON, and Perl finds the expression true of it, $j.
json()
{
	perl -MJSON::PP -e '
		local $/;
		my $j = eval { decode_json(<STDIN>) };
		die "no JSON: $@" unless ref $j;
		my %lack = map { $_->{what} => $_ } @{$j->{missing}};
		exit(eval($ARGV[0]) ? 0 : 1)' "$1" <"$scratch/out"
}

nothing_left()
{
	[ -z "$(ls -A "$scratch/dir")" ]
}

# ------------------------------------------------------------- what it says

# Both at once, as most of that is waiting for the disk.
test_with_path()
{
	"$probe" --path "$scratch/dir" >"$scratch/text" 2>"$scratch/text.err" &
	run "$probe" --json --path "$scratch/dir"
	cp "$scratch/out" "$scratch/full"
	test_json
	wait $!
	status=$?
	cp "$scratch/text" "$scratch/out"
	cp "$scratch/text.err" "$scratch/err"
	test_text
}

test_text()
{
	check "as text: sections, nothing on stderr, nothing left behind" \
		'[ $status -eq $good ]' silent nothing_left 'says "^Kernel and policy"' \
		'says "^Set-up flags"' 'says "^Opcodes"' 'says "^Limits"' 'says "^Times"' \
		'says "^Files in $scratch/dir"' 'says "^Durable writes"' \
		'! grep -q ".\{105\}" "$scratch/out"'
}

# keys_of_page REPORT...: every key of them stands in the page, and the other way
# round; what setup_flags and opcodes name, and which jobs failed, is no key.
keys_of_page()
{
	perl -MJSON::PP -e '
		local $/;
		my (%seen, %told);
		sub walk {
			my ($what, $of) = @_;
			if (ref $what eq "HASH") {
				for (keys %$what) {
					$seen{$_} = 1 unless $of =~ /^(setup_flags|opcodes|errors)$/;
					walk($what->{$_}, $_);
				}
			} elsif (ref $what eq "ARRAY") {
				walk($_, "") for @$what;
			}
		}
		%told = map { $_ => 1 } <STDIN> =~ /^\.It Va (\S+)/mg;
		walk(decode_json($_), "") while <>;
		my @wrong = (map("$_: not in the page", grep !$told{$_}, sort keys %seen),
			     map("$_: not in the report", grep !$seen{$_}, sort keys %told));
		print "$_\n" for @wrong;
		exit @wrong > 0' "$@" <"$root/man/gyre-probe.1" >"$scratch/err" 2>&1
}

test_json()
{
	check "as JSON, and nothing on stderr" '[ $status -eq $good ]' silent \
		'json "\$j->{tool} eq q(gyre-probe)"' \
		'json "\$j->{runs} == ($good == 0)"' \
		'json "\$j->{times_ns}{syscall}{median} > 0"' \
		'json "\$j->{path}{durable}[1]{threads} == 8"'
	[ "$good" -eq 0 ] || return
	check "as JSON: what must be so where gyre runs" \
		'json "\$j->{opcodes}{NOP} && \$j->{setup_flags}{CQSIZE}"' \
		'json "\$j->{limits}{ring_bytes} > 0"' \
		'json "grep { \$_ eq q(R_DISABLED) } @{\$j->{setup_flags_in_use}}"' \
		'json "!grep { \$_->{needed} } @{\$j->{missing}}"'
	check "as JSON: a NOP needs no thread of the kernel, statx() and fsync() do" \
		'json "!\$j->{path}{kernel_threads}{nop}"' \
		'json "\$j->{path}{kernel_threads}{statx} // 1"' \
		'json "\$j->{path}{kernel_threads}{fsync} // 1"'
}

# It may not include the library's tables, so its own must be the same.
test_tables()
{
	sed -n 's/^	\[[0-9]*\] = { "\([A-Z_0-9]*\)", \([A-Z_]*\),.*/\1 \2/p' "$root/ring/sanitize.c" |
		sed -n '/ REFUSED$/!s/ .*//p' | sort >"$scratch/rows"
	perl -MJSON::PP -e 'local $/; print "$_\n" for sort keys %{decode_json(<STDIN>)->{opcodes}}' \
		<"$scratch/full" >"$scratch/told"
	status=0
	diff "$scratch/rows" "$scratch/told" >"$scratch/err"
	check "its opcodes are those of the library's allow-list" \
		silent '[ -s "$scratch/rows" ]'
	sed -n '/^static const unsigned setup_flags/,/^}/p' "$root/ring/ring.c" | sed 1d >"$scratch/rows"
	sed -n '/^static const unsigned combinations/,/^}/p' "$root/tools/probe_ring.c" |
		sed 1d >"$scratch/told"
	diff "$scratch/rows" "$scratch/told" >"$scratch/err"
	check "its set-up flags are the library's, in the library's order" \
		silent '[ -s "$scratch/rows" ]'
}

# ---------------------------------------------------------- policy and limits

test_policy()
{
	for answer in EPERM ENOSYS; do
		run "$jail" io_uring_setup=$answer -- "$probe" --json
		check "io_uring_setup refused with $answer: a sentence, status 1" \
			'[ $status -eq 1 ]' silent 'json "\$j->{policy}{io_uring_setup} eq q($answer)"' \
			'json "\$j->{policy}{seccomp} eq q(filter) && !\$j->{runs}"' \
			'json "\$lack{gyre_open}{needed} && \$lack{gyre_open}{how} =~ /seccomp.*$answer/"'
	done
	check "its keys are those of the page" 'keys_of_page "$scratch/full" "$scratch/out"'
	run "$jail" io_uring_setup=kill -- "$probe" --json
	check "whoever asks for a ring is killed: we are not" '[ $status -eq 1 ]' silent \
		'json "\$j->{policy}{kills} && \$lack{io_uring_setup}{how} =~ /kills.*allow/"'
	[ "$good" -eq 0 ] || return
	for call in enter register; do
		run "$jail" io_uring_$call=EPERM -- "$probe" --json
		check "io_uring_$call refused: a sentence, status 1" '[ $status -eq 1 ]' silent \
			'json "\$j->{policy}{io_uring_$call} eq q(EPERM)"' \
			'json "\$lack{io_uring_$call}{needed}"'
	done
}

# limited FLAG VALUE COMMAND...
limited()
(
	ulimit "$1" "$2" || exit 125
	shift 2
	exec "$@"
)

test_limits()
{
	what="with little locked memory: how much is needed and where it is set"
	run limited -l 8 "$jail" no-lock -- "$probe" --json
	if json '$j->{runs}'; then
		skip "$what" "rings do not count against RLIMIT_MEMLOCK here"
	else
		check "$what" '[ $status -eq 1 ]' silent \
			'json "\$lack{memlock}{how} =~ /each locks \d+ KiB.*LimitMEMLOCK=/"'
	fi
	what="rings are counted in those of the size that is asked about"
	if ! limited -l 4096 true 2>/dev/null; then
		skip "$what" "the limit of locked memory is lower here"
	else
		run limited -l 4096 "$jail" no-lock -- "$probe" --json --ring-entries 64 --inflight 128
		check "$what" '[ $status -eq 0 ]' silent \
			'json "\$j->{limits}{ring_entries} == 64 && \$j->{limits}{inflight_max} == 128"' \
			'json "\$j->{limits}{memlock_bytes} == 4 << 20"' \
			'json "!\$j->{limits}{memlock_counts} || \$j->{limits}{rings} ==
				int((4 << 20) / \$j->{limits}{ring_bytes})"'
	fi
	run limited -n 5 "$probe" --json
	check "without descriptors: a sentence, status 1" '[ $status -eq 1 ]' silent \
		'json "\$lack{descriptors}{how} =~ /LimitNOFILE=/"' \
		'json "\$j->{limits}{descriptors} == 5"'
}

# ---------------------------------------------------------------- bad input

test_usage()
{
	: >"$scratch/why"
	for arguments in --nonsense extra --path --path= '--ring-entries 0' '--inflight 65537' \
			'--ring-entries 12x'; do
		# shellcheck disable=SC2086 # words
		run "$probe" $arguments
		[ "$status" -eq 2 ] && complains '' && [ ! -s "$scratch/out" ] ||
			echo "$arguments: status $status" >>"$scratch/why"
	done
	if [ -s "$scratch/why" ]; then
		report bad "arguments that make no sense: a sentence, status 2" "$scratch/why"
	else
		report ok "arguments that make no sense: a sentence, status 2"
	fi
	run "$probe" --version
	check "--version" '[ $status -eq 0 ]' silent 'says "^gyre-probe [0-9]"'
	"$probe" >/dev/full 2>"$scratch/err"
	status=$?
	: >"$scratch/out"
	check "a report that cannot be written: a sentence, status 1" '[ $status -eq 1 ]' \
		'complains "cannot be written"'
}

# bad_path TEXT PATTERN COMMAND...: status 2 and a sentence, the rest of the report all the same.
bad_path()
{
	where=$1
	# shellcheck disable=SC2034 # by check()
	pattern=$2
	shift 2
	run "$@"
	check "--path $where: a sentence, status 2, and the rest of the report" '[ $status -eq 2 ]' \
		'complains "$pattern"' 'json "\$j->{path}{error} =~ /$pattern/"' \
		'json "\$j->{times_ns}{syscall}{median} > 0"'
}

# In a mount namespace of its own: MOUNTED is mounted on $scratch/mounted by mount's arguments.
mounted()
{
	# shellcheck disable=SC2016 # it is the inner shell's
	unshare -m sh -c '
		dir=$1 options=$2
		shift 2
		mount $options "$dir" && "$@"' sh "$scratch/mounted" "$@"
}

test_bad_paths()
{
	bad_path "is missing" "no such directory" "$probe" --json --path "$scratch/nowhere"
	: >"$scratch/file"
	bad_path "is a file" "not a directory" "$probe" --json --path "$scratch/file"
	bad_path "on procfs" "made there" "$probe" --json --path /proc/self
	mkdir "$scratch/mounted"
	if ! mounted '-t tmpfs tmpfs' true 2>/dev/null; then
		skip "--path on a full file system" "mounting is not allowed here"
		skip "--path on a read-only file system" "mounting is not allowed here"
		return
	fi
	bad_path "on a full file system" "no room" \
		mounted '-t tmpfs -o size=64k tmpfs' "$probe" --json --path "$scratch/mounted"
	bad_path "on a read-only file system" "read-only" \
		mounted '-t tmpfs -o ro tmpfs' "$probe" --json --path "$scratch/mounted"
}

# ------------------------------------------------------------ nothing is left

# Its descriptors show the scratch file, which has no name any more.
has_scratch()
{
	[ -n "$(find "/proc/$1/fd" -lname "$scratch/dir/* (deleted)" 2>/dev/null)" ]
}

# ended_by SIGNAL COMMAND...: while the scratch file is there.
ended_by()
{
	signal=$1
	shift
	"$@" >"$scratch/out" 2>"$scratch/err" &
	pid=$!
	until has_scratch "$pid"; do
		if ! kill -0 "$pid" 2>/dev/null; then
			report bad "SIG$signal: it is still there" "$scratch/err"
			return
		fi
	done
	kill "-$signal" "$pid"
	wait "$pid" 2>/dev/null
	status=$?
	check "SIG$signal while the scratch file is there leaves nothing" '[ $status -gt 128 ]' \
		nothing_left
}

test_nothing_left()
{
	ended_by TERM "$probe" --path "$scratch/dir"
	ended_by KILL "$probe" --path "$scratch/dir"
	ended_by TERM "$jail" no-tmpfile -- "$probe" --path "$scratch/dir"
	if env --default-signal=INT true 2>/dev/null; then
		ended_by INT env --default-signal=INT "$probe" --path "$scratch/dir"
	else
		skip "SIGINT while the scratch file is there leaves nothing" "env is too old"
	fi
}

# -------------------------------------------------------------------- main

if [ ! -x "$probe" ]; then
	echo "1..0 # SKIP gyre-probe was not built"
	exit 0
fi
if ! perl -MJSON::PP -e 1 2>/dev/null; then
	echo "1..0 # SKIP Perl's JSON::PP is missing"
	exit 0
fi
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 2' HUP INT TERM
mkdir "$scratch/dir"

# Where io_uring is refused anyway, that is what it must say.
run "$probe"
good=$status

test_with_path
test_tables
test_policy
[ "$good" -ne 0 ] || test_limits
test_usage
test_bad_paths
test_nothing_left
echo "1..$number"
[ "$failed" -eq 0 ]
