#!/bin/sh
# Copyright the kyozon authors.
# SPDX-License-Identifier: Apache-2.0

# Runs every fuzz test of the tree, one after the other, for the time given: build/fuzz.sh 20s

set -eu

time=$1
passed=0 failed=0
for line in $(grep -rhoE --include='*_test.go' --exclude-dir=tools '^func Fuzz[A-Za-z0-9_]*' . -H | sed 's/:func /:/'); do
	folder=$(dirname "${line%%:*}") name=${line##*:}
	echo "== $folder $name"
	if go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$folder"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
