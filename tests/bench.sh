#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# gyre-bench from the outside: what it takes, what it refuses and how it says
# so, and what it makes of reports. The reports are made here, so that each
# verdict has one right answer; nothing is timed. Speaks TAP.
#
# usage: tests/bench.sh [BUILD]		a build directory ($GYRE_TEST_BUILDDIR, .)
set -u
exec </dev/null
LC_ALL=C
export LC_ALL

build=$(CDPATH='' cd -- "${1:-${GYRE_TEST_BUILDDIR:-.}}" && pwd) || exit 1
bench=$build/gyre-bench
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
number=0
failed=0

if [ ! -x "$bench" ]; then
	echo '1..0 # SKIP gyre-bench was not built'
	exit 0
fi
# Not by libtool's script, which cannot do without a PATH.
if [ -x "$build/.libs/gyre-bench" ]; then
	bench=$build/.libs/gyre-bench
	LD_LIBRARY_PATH=$build/.libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
	export LD_LIBRARY_PATH
fi
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1

# said OK TEXT: one TAP line; when it is not ok, what gyre-bench said follows.
said()
{
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number - $2"
		return
	fi
	failed=$((failed + 1))
	echo "not ok $number - $2"
	echo "# exit status $status"
	sed 's/^/# /' out err
}

skip()
{
	number=$((number + 1))
	echo "ok $number - $1 # SKIP $2"
}

# With $search as its PATH.
search=$PATH
run()
{
	PATH=$search "$bench" "$@" >out 2>err
	status=$?
}

# expect STATUS TEXT WORDS...: the last run ended so, and its output has all words.
expect()
{
	local wanted=$1 text=$2 word good=0
	shift 2
	[ "$status" = "$wanted" ] || good=1
	for word in "$@"; do
		grep -qF -e "$word" out err || good=1
	done
	said "$good" "$text"
}

# refused TEXT WORD OPTIONS...: exit status 2, and a sentence of one line.
refused()
{
	local text=$1 word=$2
	shift 2
	run "$@"
	[ "$(wc -l <err)" = 1 ] || status="$status, and not one line"
	expect 2 "$text" "gyre-bench: " "$word"
}

# ------------------------------------------------------------- arguments

arguments()
{
	refused "an unknown work is refused" "--work wants" --work sleep
	refused "an unknown engine is refused" "there is no engine" --engines warp
	refused "an option without its value is refused" "needs a value" --json
	refused "one report is not enough to compare" "two reports" --compare a.json
	refused "--compare measures nothing" "measures nothing" --compare --work nop a.json b.json
	refused "--from measures nothing" "measures nothing" --from a.json --callers 2
	refused "--from has no use for a file" "what is 'x' for" --from a.json x
	refused "two outputs need two files" "cannot both write" --json x --plot x
	refused "batch-read is a work on files" "engine floor cannot do" \
		--work batch-read --engines floor
	run --help
	expect 0 "--help tells of what can be told from reports" --compare --from --plot batch-read
}

# --------------------------------------------------------------- reports

# report FILE "NUMBERS": each number is a round of gyre, in thousands of ops/s;
# the rounds of threads are all alike. cpu, kernel, format and floor may be set.
report()
{
	local file=$1 numbers=$2
	awk -v numbers="$numbers" -v cpu="${cpu:-A CPU}" -v kernel="${kernel:-Linux 6.1 x}" \
		-v format="${format:-1}" -v floor="${floor:-2000}" '
	function engine(name, values, last,    n, v, i)
	{
		n = split(values, v, " ")
		printf "{\"engine\": \"%s\", \"rounds\": [", name
		for (i = 1; i <= n; i++)
			printf "%s{\"ops_per_s\": %g, \"p50_us\": 1, \"p90_us\": 2, \"p99_us\": 3.5," \
			       " \"p999_us\": 40, \"max_us\": 50, \"cpu_us_per_op\": null}", \
				(i > 1 ? ", " : ""), v[i] * 1000
		printf "]}%s", last ? "" : ",\n"
	}
	function many(value, count,    text)
	{
		while (count-- > 0)
			text = text " " value
		return text
	}
	BEGIN {
		rounds = split(numbers, unused, " ")
		printf "{\n  \"tool\": \"gyre-bench\",\n  \"format\": %s,\n", format
		printf "  \"date\": \"2026-01-01T00:00:00Z\",\n"
		printf "  \"machine\": {\"cpu\": \"%s\", \"cpus_usable\": 2, \"cpu_quota\": null,\n", cpu
		printf "    \"memory_bytes\": 1073741824, \"kernel\": \"%s\", \"gyre\": \"0.1\",\n", kernel
		printf "    \"environment\": \"\"},\n"
		printf "  \"plan\": {\"suite\": null, \"seconds\": 1, \"warmup_seconds\": 0,"
		printf " \"rounds\": %d, \"workers\": 0},\n  \"cases\": [{\"what\": \"-\", \"work\": ", rounds
		printf "\"nop\", \"callers\": 4, \"batch\": 1, \"vectored\": false, \"rate\": null,\n"
		printf "    \"spin_ns\": \"default\", \"ratio_to\": \"condvar\", \"engines\": [\n"
		engine("condvar", many(100, rounds))
		engine("gyre", numbers)
		engine("floor", many(floor, rounds), 1)
		printf "]}]\n}\n"
	}' >"$file"
}

compare()
{
	report old.json "${1}"
	report new.json "${2}"
	run --compare old.json new.json
}

comparisons()
{
	compare "1000 1010 990 1005 995" "1200 1210 1190 1205 1195"
	expect 0 "what is faster is called so" "gyre           1,000,000    1,200,000    1.20" \
		"3 rows: 0 slower, 1 faster, 2 the same"
	compare "1000 1010 990 1005 995" "900 910 890 905 895"
	expect 1 "what is slower is called so, by exit status, too" "0.90" "3 rows: 1 slower, 0 faster"
	compare "1000 1010 990 1005 995" "1001 1011 991 1004 996"
	expect 0 "what differs by less than the rounds do is the same" \
		"0 slower, 0 faster, 3 the same within noise, 0 too noisy"
	compare "1000 1001 1002 1003 1004" "991 992 993 994 995"
	expect 0 "one in a hundred is no change, however sure" "3 the same within noise"
	compare "1000 1500 700 1200 900" "800 1400 650 1100 950"
	expect 0 "what the rounds cannot tell is too noisy" "1 too noisy to say"
	compare "1000 1010 990 1005" "500 510 490 505"
	expect 0 "four rounds are too few" "too noisy to say: it takes five rounds each"
	# Of 25 pairs all but one lie below 1: with five rounds each, chance does that.
	compare "1000 1010 990 1005 900" "910 890 880 870 860"
	expect 0 "one round that overlaps is enough to doubt" "too noisy to say"
	compare "1000 1010 990 1005 995 1001 1002 1003 1004 900" \
		"910 890 880 870 860 865 866 867 868 869"
	expect 1 "with ten rounds it is not" "1 slower"
	run --compare old.json old.json new.json
	expect 1 "each further report is held against the first" "0 slower" "1 slower"
	run --from old.json
	expect 0 "a report can be told again" "nop, 4 callers" "A CPU, 2 CPUs usable"
}

strangers()
{
	report old.json "1000 1010 990 1005 995"
	cpu="B CPU" report other.json "1000 1010 990 1005 995"
	run --compare old.json other.json
	expect 0 "another machine is told" "different machines: A CPU with 2 CPUs, and B CPU"
	kernel="Linux 7 x" report other.json "1000 1010 990 1005 995"
	run --compare old.json other.json
	expect 0 "another kernel is told" "different kernels"
	floor=1000 report other.json "1000 1010 990 1005 995"
	run --compare old.json other.json
	expect 1 "another mode of the machine is told, and that its peers changed" \
		"different modes of the machine" "the machine was not"
	format=99 report other.json 1
	refused "another format is told" "in format 99" --compare old.json other.json
	head -c 900 old.json >other.json
	refused "a report that was cut off is told" "it ends in the middle" --compare old.json other.json
	: >other.json
	refused "an empty file is told" "is empty" --compare old.json other.json
	echo 'not {json' >other.json
	refused "what is no JSON is told" "is no JSON: line 1" --compare other.json old.json
	printf '%s\n' '[{"tool": "gyre-bench", "a": "\u00e9\\"}, -1.5e3, true, null]' >other.json
	refused "what is no report is told" "no report of gyre-bench" --from other.json
	awk 'BEGIN { for (i = 0; i < 100000; i++) printf "[" }' >other.json
	refused "JSON of great depth is told" "nested too deeply" --from other.json
	sed 's/"rounds": \[/&{}, /' old.json | sed '0,/{}, /s///' >other.json
	refused "rounds that are missing are told" "other rounds than the rest" --from other.json
	sed 's/"floor"/"warp"/' old.json >other.json
	refused "an engine of the future is told" "does not know: warp" --from other.json
	sed 's/"callers": 4/"callers": -4/' old.json >other.json
	refused "a case that cannot be is told" "a case that this gyre-bench does not know" \
		--from other.json
	refused "a report that is not there is told" "cannot be read" --from nowhere.json
	echo "dear diary" >diary
	refused "somebody's file is not overwritten" "left alone" --work nop --json diary
	refused "nor by pictures" "left alone" --from old.json --plot diary
	[ "$(cat diary)" = "dear diary" ]
	said $? "and is as it was"
}

# ------------------------------------------------------------- pictures

pictures()
{
	cpu="A & B <CPU>" report old.json "1000 1010 990 1005 995"
	run --from old.json --plot page.svg
	expect 0 "pictures are made of a report"
	if command -v xmllint >/dev/null 2>&1; then
		xmllint --noout page.svg >out 2>err
		said $? "they are well-formed XML"
	elif perl -MXML::Parser -e 1 2>/dev/null; then
		perl -MXML::Parser -e 'XML::Parser->new->parsefile($ARGV[0])' page.svg >out 2>err
		said $? "they are well-formed XML"
	else
		skip "they are well-formed XML" "neither xmllint nor XML::Parser is installed"
	fi
	cp page.svg out
	expect 0 "they name machine, work and every engine" "A &#38; B &#60;CPU&#62;" ">nop<" \
		">condvar  100 k<" ">gyre  1 M<" ">floor  2 M<" "callers" "p99.9" "operations a second"
	run --from old.json --plot page.svg
	expect 0 "an earlier page of ours is overwritten"
}

# ------------------------------------------------------------ measuring

# What tasks cost, and what is measured beside them.
tasks()
{
	local work few="--quiet --rounds 1 --time 0.01 --warmup 0"
	refused "--tasks is gone: its rows are works" "no such option" --tasks
	refused "a batch is for go alone" "--work yield takes no --batch" --work yield --batch 2
	refused "nor have tasks a rate" "--work go takes no --rate" --work go --rate 5
	refused "tasks use no file" "uses no file" --work job data
	refused "one yields" "has one caller, not 2" --work yield --callers 2
	refused "many are for sleepers alone" "from 1 to 4096" --work job --callers 4097
	refused "more than a million are none" "from 1 to 1000000" --work sleepers --callers 2M
	refused "so many threads are too many" "at most 4096" --work sleepers --callers 5000 \
		--engines pthread
	refused "threads do not yield to one another" "engine pthread cannot do --work yield" \
		--work yield --engines pthread
	refused "a bare switch starts nothing" "engine fiber cannot do --work go" --work go \
		--engines fiber
	for work in "yield ucontext" "yield fiber" "alloc malloc" "job ucontext"; do
		# shellcheck disable=SC2086 # words
		run $few --work ${work% *} --engines "${work#* }"
		expect 0 "${work% *} is measured by ${work#* }" "${work% *}" "CPU us/op"
	done
	peer boost "stacks are switched" --work yield
	# shellcheck disable=SC2086
	run $few --work go --batch 4 --engines pthread
	expect 0 "threads are started together" "go, batch of 4"
	# shellcheck disable=SC2086
	run $few --rounds 5 --work sleepers --callers 20 --engines pthread --json asleep.json \
		--plot asleep.svg
	expect 0 "threads sleep, and their memory is told" "sleepers, 20 of them" "RSS bytes"
	run --from asleep.json
	expect 0 "and that report is read again" "sleepers, 20 of them" "wake us" "RSS ratio"
	sed 's/"rss_bytes": [0-9.e+]*/"rss_bytes": 1e9/' asleep.json >fat.json
	run --compare asleep.json fat.json
	expect 1 "more memory is slower" "sleepers, 20 of them, RSS bytes" "1 slower"
	grep -q "bytes of memory each (less is better)" asleep.svg
	said $? "and is in the picture"
	# shellcheck disable=SC2086
	run $few --work yield --engines task
	if grep -q UNSUPPORTED err; then
		skip "tasks are measured" "io_uring is forbidden here"
		return
	fi
	expect 0 "tasks yield" "yield"
	for work in go "go --batch 3" job "job --callers 3" alloc "sleepers --callers 100" \
		    "randread --callers 4 --size 1M" "mixed --callers 2 --size 1M" nop \
		    "batch --batch 4"; do
		# shellcheck disable=SC2086
		run $few --work $work --engines task
		expect 0 "tasks do $work" "task "
	done
	# shellcheck disable=SC2086
	run $few --work job --callers 2
	expect 0 "jobs are held against NOPs" "job, 2 callers" "ratio to gyre-nop"
	# shellcheck disable=SC2086
	run $few --work durable --callers 2 --size 1M --engines gyre,gyre-ring
	expect 0 "durable writes are measured on either route" "gyre-ring "
}

# Some runs of a few milliseconds; whether io_uring is there does not matter.
measurements()
{
	head -c 65536 /dev/zero >data
	run --quiet --engines threads --callers 2 --rounds 2 --time 0.01 --warmup 0 \
		--json file.json --plot file.svg data
	expect 0 "a file is measured" "threads"
	run --from file.json
	expect 0 "and its report is read again" "randread buffered, 2 callers" "64 KiB"
	grep -q ">threads" file.svg
	said $? "and its pictures are there"
	run --quiet --work batch-read --engines threads --rounds 1 --time 0.01 --warmup 0 data
	expect 0 "batch-read reads batches" "randread buffered, 1 caller, batch of 32"

	run --quiet --work mixed --engines threads --rounds 1 --time 0.05 --warmup 0 --size 1M .
	expect 0 "mixed reads and writes" "mixed buffered, 1 caller"
	run --quiet --work mixed --engines threads --rounds 1 --time 0.01 data
	expect 2 "but no file of the user's" "only with --overwrite"

	# It shrinks as soon as the first round has ended.
	mkfifo pipe
	"$bench" --engines threads --callers 1 --rounds 50 --time 0.2 --warmup 0 \
		--json shrunk.json data >out 2>pipe &
	local pid=$! line
	{
		read -r line
		truncate -s 4096 data
		cat >err
	} <pipe
	wait "$pid"
	status=$?
	expect 1 "a file that shrinks is told, and the rounds before it" \
		"data has shrunk while it was measured, from 64 KiB to 4 KiB" \
		"randread buffered, 1 caller"
	[ -n "$line" ] && [ ! -e shrunk.json ]
	said $? "and no report is left of it"
}

# ---------------------------------------------------------------- peers

# peer ENGINE TEXT OPTIONS...: it measures, or says why it is not here.
peer()
{
	local engine=$1 text=$2
	shift 2
	if "$bench" --help | grep -q "^  $engine .*\[not here\]"; then
		refused "$text, and $engine says why it does not" "engine $engine is not here" \
			--engines "$engine" "$@"
		return
	fi
	run --quiet --engines "$engine" --rounds 1 --time 0.02 --warmup 0 "$@"
	expect 0 "$text by $engine" "$engine"
}

peers()
{
	local engine
	head -c 262144 /dev/urandom >data
	peer libuv "NOPs are handed over" --work nop --callers 2
	for engine in libuv posixaio fio-psync; do
		peer "$engine" "a file is read" --callers 2 data
		cp data copy
		peer "$engine" "a file is written" --work randwrite --overwrite --callers 2 copy
		peer "$engine" "a file is written durably" --work durable --overwrite --callers 2 copy
	done
	for engine in libuv posixaio; do
		peer "$engine" "a file is read and written" --work mixed --size 1M .
	done
	for engine in libuv posixaio fio-libaio; do
		peer "$engine" "batches are read" --work batch-read --batch 4 data
	done
	search=
	refused "without fio its engines say so" "no program fio in PATH" \
		--engines fio-uring data
	run --help
	expect 0 "and --help marks them" "a job for each caller [not here]"
	mkdir -p fakes
	search=$scratch/fakes:$PATH
	printf '#!/bin/sh\necho "it rains" >&2\nexit 3\n' >fakes/fio
	chmod +x fakes/fio
	run --quiet --engines fio-uring --rounds 1 --time 0.01 data
	expect 1 "a fio that fails is told with its reason" "fio failed: it rains"
	printf '#!/bin/sh\necho note; echo "{\\"jobs\\": [{}]}"\n' >fakes/fio
	run --quiet --engines fio-uring --rounds 1 --time 0.01 data
	expect 1 "a fio that tells nothing is told" "fio told of no operations"
	printf '#!/bin/sh\necho "{\\"jobs"\n' >fakes/fio
	run --quiet --engines fio-uring --rounds 1 --time 0.01 data
	expect 1 "a fio that breaks off is told" "what fio prints is no JSON"
	printf '#!/bin/sh\n' >fakes/fio
	refused "batches are not for fio-psync" "no batches of 4" --engines fio-psync --batch 4 data
	search=$PATH
}

# ---------------------------------------------------------------- table

# tools/bench-report over a gyre-bench that prints what one prints, and over this one.
tables()
{
	local report=$root/tools/bench-report line='| nop, 1 caller | gyre |'
	# shellcheck disable=SC2016 # for the script that this makes
	printf '%s\n' '#!/bin/sh' '[ -z "$FAKE_FAILS" ] || exit 1' 'cat <<TXT' 'gyre-bench 9.9, today' \
		'machine   M' 'kernel    K' 'file      /secret' '' '| what | engine |' '|---|---|' \
		"$line" '' 'The floor: fast mode.' TXT >fake
	chmod +x fake
	printf '%s\n' before '<!-- bench:begin -->' old '<!-- bench:end -->' after >README
	cp README kept
	"$report" --dry-run --program ./fake --readme README >out 2>err
	status=$?
	expect 0 "a table that is only printed" "$line" "machine   M" "fast mode"
	cmp -s README kept && ! grep -q secret out
	said $? "leaves README alone, and names no file"
	FAKE_FAILS=yes "$report" --busy --program ./fake --readme README >out 2>err
	status=$?
	[ "$status" != 0 ] && cmp -s README kept
	said $? "so does a gyre-bench that fails"
	"$report" --busy --program ./fake --readme README >out 2>err
	status=$?
	cp README out
	expect 0 "a new table takes the old one's place" before after "$line" '<!-- bench:end -->'
	! grep -qx old README
	said $? "which is gone"
	echo 'no marks' >README
	"$report" --busy --program ./fake --readme README >out 2>err
	status=$?
	expect 1 "a README without a place for it is told" "no place for the table"

	"$report" --dry-run --program "$bench" . -- --quiet --time 0.01 --warmup 0 --rounds 1 \
		--size 1M >out 2>err
	status=$?
	if grep -q UNSUPPORTED err; then
		skip "the whole table is printed" "io_uring is forbidden here"
	else
		expect 0 "the whole table is printed" "| nop, 1 caller " "mixed buffered, 8 callers" \
			"durable buffered, 8 callers" "hand-overs a second" "kernel " "p50 ratio" \
			"(24 ns)" "there and back in 12 ns" "RSS bytes"
	fi
}

arguments
comparisons
strangers
pictures
tasks
measurements
peers
tables
echo "1..$number"
[ "$failed" = 0 ]
