// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Command lint runs, over one load of the program, the checks that have no program of their own.
// docs/decisions/007-linters.md says why it is not golangci-lint.
package main

import (
	"github.com/gordonklaus/ineffassign/pkg/ineffassign"
	"github.com/polyfloyd/go-errorlint/errorlint"
	"go-simpler.org/sloglint"
	"golang.org/x/tools/go/analysis/multichecker"
	"golang.org/x/tools/go/analysis/passes/modernize"
	"golang.org/x/tools/go/analysis/passes/nilness"
	"golang.org/x/tools/go/analysis/passes/unusedwrite"
)

func main() {
	slog := sloglint.New(&sloglint.Options{
		NoGlobalLogger:    "all",
		StaticMessage:     true,
		KeyValuePairsOnly: true,
		KeyNamingCase:     "kebab",
	})
	checks := append(modernize.Suite, errorlint.NewAnalyzer(), ineffassign.Analyzer, nilness.Analyzer, slog,
		unusedwrite.Analyzer)
	multichecker.Main(checks...)
}
