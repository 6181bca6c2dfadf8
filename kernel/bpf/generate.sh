#!/bin/sh
# Copyright the kyozon authors.
# SPDX-License-Identifier: Apache-2.0

# Compiles the program and writes the Go types of its maps. The compiler's version is fixed, so that the objects in git come
# out the same on every machine.

set -eu

cd "$(dirname "$0")/.."
GOPACKAGE=kernel exec go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb \
	-type reason -type kind -type state -type source -type service_flags -type backend_flags \
	forward bpf/forward.c -- -mcpu=v3 -nostdinc -Wall -Wextra -Werror -Wno-unused-parameter -Wno-address-of-packed-member
