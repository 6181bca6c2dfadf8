// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/edge/plane"
	"github.com/kyozon/kyozon/lab"
)

func (e *env) checkCommand() *cobra.Command {
	var control string
	var noFiles bool
	c := &cobra.Command{
		Use: "check FILE", Short: "Say what is wrong with a site file", Args: cobra.ExactArgs(1),
		Long: "Say what is wrong with a site file, and with the files that it names: certificates, subscribers, announcements and\n" +
			"so on, which `kyozon run` and `kyozon reload` read too. It asks nobody over the network, and changes nothing.",
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := config.Load(args[0], protocols())
			if err != nil {
				return err
			}
			e.warn(cfg.Warnings)
			if !noFiles {
				warnings, err := cfg.ReadFiles(protocols())
				e.warn(warnings)
				if err != nil {
					return err
				}
			}
			e.warnQueue(c.Context(), control, cfg)
			_, err = fmt.Fprintf(e.stdout, "%s: fine, %d services\n", args[0], len(cfg.Services))
			return err
		},
	}
	e.controlFlag(c, &control)
	c.Flags().BoolVar(&noFiles, "no-files", false, "leave out the files that it names: for a machine that does not have them")
	return c
}

// warn prints what is allowed but may not be meant.
func (e *env) warn(warnings []*config.Error) {
	for _, w := range warnings {
		fmt.Fprint(e.stderr, "warning: ")
		w.Format(e.stderr, e.colour)
	}
}

// verb makes a command that has the running kyozon do something.
func (e *env) verb(use, short, long string) *cobra.Command {
	var control string
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var done edge.Done
			if err := ask(c.Context(), control, "POST", "/"+use, &done); err != nil {
				return err
			}
			e.warn(done.Warnings)
			_, err := fmt.Fprintln(e.stdout, done.Text)
			return err
		},
	}
	e.controlFlag(c, &control)
	return c
}

func (e *env) reloadCommand() *cobra.Command {
	return e.verb("reload", "Have the running kyozon read its file again",
		"Have the running kyozon read its file again. On any mistake it runs on as it was. No connection is lost.")
}

func (e *env) upgradeCommand() *cobra.Command {
	return e.verb("upgrade", "Have the binary that is installed now take over",
		"Start the binary that is installed now in place of the running one, with its listening sockets. The old\n"+
			"process drains. If the new one fails, the old one goes on.")
}

func (e *env) stopCommand() *cobra.Command {
	var control string
	var detach bool
	c := &cobra.Command{
		Use: "stop", Short: "Let flows end, then end the running kyozon", Args: cobra.NoArgs,
		Long: "Let flows end, then end the running kyozon. Flows in the kernel plane go on, and the next kyozon takes them\n" +
			"over; --detach lets them end too and removes the kernel plane, also one that a killed kyozon has left, and that\n" +
			"of streams of calls if kyozon media does not run: while it runs, it keeps its own.",
		RunE: func(c *cobra.Command, _ []string) error { return e.stop(c.Context(), control, detach) },
	}
	e.controlFlag(c, &control)
	c.Flags().BoolVar(&detach, "detach", false, "remove the kernel plane too")
	return c
}

// stop stops the running kyozon. If none runs, there may still be a kernel plane to remove.
func (e *env) stop(ctx context.Context, control string, detach bool) error {
	path := "/stop"
	if detach {
		path += "?detach=1"
	}
	var done edge.Done
	err := ask(ctx, control, "POST", path, &done)
	if err != nil && detach && errors.Is(err, errNotRunning) {
		done.Text, err = detachPlanes()
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, done.Text)
	return err
}

// detachPlanes removes the kernel planes that processes have left.
func detachPlanes() (said string, err error) {
	if err := plane.Detach(); err != nil {
		return "", err
	}
	switch err := plane.DetachMedia(); {
	case errors.Is(err, plane.ErrMediaRuns):
		return fmt.Sprint("no kyozon runs; the kernel plane is removed, but for that of calls: ", err), nil
	case err != nil:
		return "", err
	}
	return "no kyozon runs; the kernel plane is removed", nil
}

func (e *env) labCommand() *cobra.Command {
	c := &cobra.Command{Use: "lab", Short: "Networks of namespaces with real servers, from a file"}
	c.AddCommand(&cobra.Command{
		Use: "run FILE", Short: "Bring a lab up, try every crossing, show the table, take it down", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return e.runLab(c.Context(), args[0], false) },
	}, &cobra.Command{
		Use: "up FILE", Short: "Bring a lab up, try every crossing, and keep it until Ctrl-C", Args: cobra.ExactArgs(1),
		Long: "Bring a lab up, try every crossing, and show the table and how to enter each host. Ctrl-C takes the lab\n" +
			"down; so does everything else that ends this process.",
		RunE: func(c *cobra.Command, args []string) error { return e.runLab(c.Context(), args[0], true) },
	})
	return c
}

// runLab brings up the lab in a file with this program as its edge.
func (e *env) runLab(ctx context.Context, file string, hold bool) error {
	f, err := lab.Load(file)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return lab.Run(ctx, f, lab.Options{Out: e.stdout, Kyozon: self, Hold: hold})
}

func (e *env) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIRECTORY", Short: "Write the man pages", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			return doc.GenManTree(c.Root(), &doc.GenManHeader{Title: "KYOZON", Section: "1"}, args[0])
		},
	}
}
