# shellcheck shell=sh
# SPDX-License-Identifier: MIT
#
# The half that tools/quickstart, tools/check and .ci/run share: the build
# dependencies, which debian/control lists and nothing else does, and a build
# out of tree in ./build. To be sourced, with $setup_name and $root set.

: "${setup_name:?}" "${root:?}"
setup_install=yes

setup_say()
{
	printf '%s: %s\n' "$setup_name" "$*"
}

setup_stop()
{
	printf '%s: %s\n' "$setup_name" "$*" >&2
	exit 1
}

setup_jobs()
{
	nproc 2>/dev/null || echo 2
}

# setup_as_root COMMAND...
setup_as_root()
{
	if [ "$(id -u)" -eq 0 ]; then
		env DEBIAN_FRONTEND=noninteractive "$@"
	else
		sudo env DEBIAN_FRONTEND=noninteractive "$@"
	fi
}

# setup_apt WHAT ARGUMENTS...: fetches fresh lists, then runs apt-get. Quiet
# while all goes well.
setup_apt()
{
	setup_what=$1
	shift
	if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null 2>&1; then
		setup_stop "missing: $setup_what. Run this as root, or install sudo or these packages first."
	fi
	setup_log=$(mktemp) || setup_stop "mktemp failed; is the disk full?"
	setup_say "installing: $setup_what"
	setup_as_root apt-get -q -o DPkg::Lock::Timeout=120 update >"$setup_log" 2>&1 ||
		setup_say "apt-get update failed; going on with the lists that are here"
	if ! setup_as_root apt-get -q -y -o DPkg::Lock::Timeout=120 \
			--no-install-recommends "$@" >>"$setup_log" 2>&1; then
		tail -n 20 "$setup_log" >&2
		rm -f "$setup_log"
		setup_stop "apt-get could not install: $setup_what (its last words are above)."
	fi
	rm -f "$setup_log"
}

# What debian/control asks for and this machine lacks, in words; nothing when
# all is there.
setup_missing()
{
	if command -v dpkg-checkbuilddeps >/dev/null 2>&1; then
		dpkg-checkbuilddeps "$root/debian/control" 2>&1 |
			sed -n 's/^.*[Uu]nmet build dependencies: *//p'
	else
		echo "build-essential and what debian/control lists"
	fi
}

setup_dependencies()
{
	if [ "$setup_install" = no ]; then
		setup_say "not looking for build dependencies (--no-install)"
		return
	fi
	if ! command -v apt-get >/dev/null 2>&1; then
		setup_say "no apt-get here: going on with what is installed; debian/control lists what is needed"
		return
	fi
	setup_lacking=$(setup_missing)
	if [ -z "$setup_lacking" ]; then
		setup_say "the build dependencies are installed"
		return
	fi
	(cd "$root" && setup_apt "$setup_lacking" build-dep ./) || exit 1
}

# setup_run WORDS COMMAND...: says the words, keeps the output to itself and
# shows its end when the command fails.
setup_run()
{
	setup_say "$1"
	setup_words=$1
	shift
	setup_log=$(mktemp) || setup_stop "mktemp failed; is the disk full?"
	if ! "$@" >"$setup_log" 2>&1; then
		tail -n 40 "$setup_log" >&2
		rm -f "$setup_log"
		setup_stop "failed: $setup_words (its last words are above)."
	fi
	rm -f "$setup_log"
}

setup_configure()
{
	mkdir -p "$root/build" && cd "$root/build" && ../configure
}

# A ./build that somebody configured otherwise (with a sanitizer, say) would
# measure something else, so it is configured again.
setup_build_is_plain()
{
	[ -f "$root/build/Makefile" ] && [ -x "$root/build/config.status" ] &&
		[ -z "$("$root/build/config.status" --config 2>/dev/null)" ]
}

# setup_build TARGET...
setup_build()
{
	if [ ! -f "$root/configure" ]; then
		command -v autoreconf >/dev/null 2>&1 ||
			setup_stop "autoreconf is missing; install the Debian packages autoconf, automake and libtool."
		setup_run "making configure" "$root/autogen.sh"
	fi
	if ! setup_build_is_plain; then
		setup_run "configuring in ./build" setup_configure
	fi
	command -v make >/dev/null 2>&1 ||
		setup_stop "make is missing; install the Debian package build-essential."
	setup_run "compiling in ./build" make -C "$root/build" -j"$(setup_jobs)" "$@"
}

# setup_count FILE: the totals of the last test summary that automake wrote
# into FILE (VERBOSE=1 shows it twice), as setup_passed, setup_failed and
# setup_skipped; all 0 without one.
setup_count()
{
	# shellcheck disable=SC2046 # three words are meant
	set -- $(awk '
		/^# TOTAL:/ { passed = failed = skipped = 0 }
		/^# (PASS|XFAIL):/ { passed += $3 }
		/^# (FAIL|XPASS|ERROR):/ { failed += $3 }
		/^# SKIP:/ { skipped += $3 }
		END { print passed + 0, failed + 0, skipped + 0 }
	' "$1")
	setup_passed=$1
	setup_failed=$2
	setup_skipped=$3
}

setup_counts()
{
	echo "$setup_passed passed, $setup_failed failed, $setup_skipped skipped"
}
