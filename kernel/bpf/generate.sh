#!/bin/sh
# Copyright the kyozon authors.
# SPDX-License-Identifier: Apache-2.0

# Compiles the programs and writes the Go types of their maps. The compiler's version is fixed, so that the objects in git come
# out the same on every machine.

set -eu

cd "$(dirname "$0")/.."

# compile makes a program of bpf/NAME.c, with the types that it is told.
compile() {
	name=$1
	shift
	GOPACKAGE=kernel go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb "$@" \
		"$name" "bpf/$name.c" -- -mcpu=v3 -nostdinc -Wall -Wextra -Werror -Wno-unused-parameter -Wno-address-of-packed-member
}

compile forward -type reason -type kind -type state -type source -type service_flags -type backend_flags
compile streams -type lane_flags -type fate
