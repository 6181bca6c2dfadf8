// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// ErrMissing means that a program which the lab needs is not installed.
var ErrMissing = errors.New("lab: not installed")

// lookPath returns where a program is. It looks where servers are installed, too, which an operator's PATH may lack.
// If it is nowhere, it returns the name.
func lookPath(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	return name
}

// need returns where a program is, or ErrMissing with the Debian package that has it.
func need(name, pkg string) (string, error) {
	if p := lookPath(name); filepath.IsAbs(p) {
		return p, nil
	}
	return "", missing(name, pkg)
}

func missing(name, pkg string) error {
	return fmt.Errorf("%w: %s (apt-get install %s)", ErrMissing, name, pkg)
}

// postgresDirectory returns where the newest PostgreSQL has its programs. Debian keeps them out of PATH.
func postgresDirectory() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		p, err := need("initdb", "postgresql")
		return filepath.Dir(p), err
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(newest), nil
}
