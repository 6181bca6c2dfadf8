// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Command kyozon lets IPv6 subscribers use services whose servers speak only IPv4, and the reverse.
//
// Nouns show, verbs change. `kyozon help` lists both.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/lab"
)

// version is set by the Makefile.
var version = "devel"

// The exit codes.
const (
	exitFine = iota
	exitError
	exitFindings
)

// errFindings makes the program exit with exitFindings; what was found has been printed.
var errFindings = errors.New("findings")

// env is the world as a command sees it.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	colour         bool
}

func main() {
	lab.Main()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	e := &env{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv,
		colour: term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == ""}
	os.Exit(run(ctx, e, os.Args[1:]))
}

// run is the whole program, and returns its exit code.
func run(ctx context.Context, e *env, args []string) int {
	root := e.root()
	root.SetArgs(args)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	switch err := root.ExecuteContext(ctx); {
	case err == nil:
		return exitFine
	case errors.Is(err, errFindings):
		return exitFindings
	default:
		e.report(err)
		return exitError
	}
}

// report prints an error; mistakes in a file with the line they are in.
func (e *env) report(err error) {
	mistakes := config.Errors(err)
	for _, m := range mistakes {
		m.Format(e.stderr, e.colour)
	}
	if len(mistakes) == 0 {
		fmt.Fprintf(e.stderr, "kyozon: %v\n", err)
	}
}

// log returns the log of a command that runs on.
func (e *env) log() *slog.Logger { return slog.New(slog.NewJSONHandler(e.stderr, nil)) }

// root returns the tree of commands.
func (e *env) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "kyozon",
		Short: "IPv6 subscribers use IPv4-only servers, and the reverse",
		Long: "kyozon stands between the clients of both address families and the servers of both.\n" +
			"Nouns show, verbs change. Exit codes: 0 fine, 1 error, 2 differences or findings.",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(&cobra.Group{ID: "verbs", Title: "Verbs:"}, &cobra.Group{ID: "nouns", Title: "Nouns (each with --json):"})
	verbs := []*cobra.Command{e.runCommand(), e.checkCommand(), e.reloadCommand(), e.upgradeCommand(), e.stopCommand(),
		e.demoCommand(), e.labCommand(), e.mediaCommand()}
	nouns := []*cobra.Command{e.statusCommand(), e.servicesCommand(), e.backendsCommand(), e.flowsCommand(),
		e.ledgerCommand(), e.queueCommand(), e.callsCommand(), e.subscribersCommand(),
		e.explainCommand(), e.protocolsCommand(), e.schemaCommand()}
	for _, c := range verbs {
		c.GroupID = "verbs"
	}
	for _, c := range nouns {
		c.GroupID = "nouns"
	}
	root.AddCommand(verbs...)
	root.AddCommand(nouns...)
	root.AddCommand(e.manCommand())
	return root
}
