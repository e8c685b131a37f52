#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes configure and what it needs, in a clone; a tarball has them already.
set -eu
cd "$(dirname -- "$0")"
exec autoreconf -fi
