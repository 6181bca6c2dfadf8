// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/service"
)

// TestReadFilesOfSQLite: a database that cannot be read is said to be so, and rows that name nobody are counted.
func TestReadFilesOfSQLite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "subscribers.db")
	o := defaults()
	o.Domain, o.Subscribers.Database = domain, &Database{File: service.Path(file)}
	read := func() (mistakes, warnings string) {
		t.Helper()
		for _, err := range readFiles(&service.Service{Options: o}) {
			at, ok := errors.AsType[*service.Error](err)
			if !ok || strings.Join(at.Path, ".") != "phone.subscribers.database.file" {
				t.Errorf("%v is at no place, or at another", err)
			}
			if at.Warning {
				warnings += at.Error()
			} else {
				mistakes += at.Error()
			}
		}
		return mistakes, warnings
	}
	if mistakes, _ := read(); !strings.Contains(mistakes, "no such file") {
		t.Errorf("without a file: %q", mistakes)
	}
	l := newLite(t, file)
	l.add("05010000001")
	if mistakes, warnings := read(); mistakes+warnings != "" {
		t.Errorf("a good one: %q, %q", mistakes, warnings)
	}
	l.exec("insert into subscribers values ('05010000003', 'nonsense'), ('a:b', '')")
	if mistakes, warnings := read(); mistakes != "" || !strings.Contains(warnings, "2 rows are left out") {
		t.Errorf("with rows that name nobody: %q, %q", mistakes, warnings)
	}
	o.Subscribers.Database.Query = "select nonsense"
	if mistakes, _ := read(); !strings.Contains(mistakes, file) || !strings.Contains(mistakes, "nonsense") {
		t.Errorf("a bad question: %q", mistakes)
	}
}
