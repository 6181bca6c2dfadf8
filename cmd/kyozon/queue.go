// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kyozon/kyozon/admin"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/service"
)

func (e *env) queueCommand() *cobra.Command {
	var limit int
	c := e.noun("queue", "Messages that are kept until a server has them", func(c *cobra.Command, _ []string, control string) (any, func() error, error) {
		var all []edge.QueuedStatus
		err := ask(c.Context(), control, "GET", "/queue?limit="+strconv.Itoa(limit), &all)
		return all, func() error { return admin.WriteQueue(e.stdout, all, e.style()) }, err
	})
	c.Flags().IntVar(&limit, "limit", 1000, "how many, the oldest first")
	c.AddCommand(e.queueVerb("retry ID|all", "Have a message tried at once, or all"),
		e.queueVerb("drop ID", "Forget a message: neither its recipients get it nor does its sender hear of it"))
	return c
}

// queueVerb makes a command that does something with a message.
func (e *env) queueVerb(use, short string) *cobra.Command {
	var control string
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var done edge.Done
			what := "/queue/" + c.Name() + "?" + url.Values{"id": args}.Encode()
			if err := ask(c.Context(), control, "POST", what, &done); err != nil {
				return err
			}
			_, err := fmt.Fprintln(e.stdout, done.Text)
			return err
		},
	}
	e.controlFlag(c, &control)
	return c
}

// warnQueue warns of messages that the kyozon which runs the same site keeps, and that cfg has no place for. Where none
// runs, nobody knows.
func (e *env) warnQueue(ctx context.Context, control string, cfg *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var st edge.Status
	if ask(ctx, control, "GET", "/status", &st) != nil || st.Site != cfg.Site {
		return
	}
	for _, q := range st.Queues {
		if q.Service != "" && !keeps(cfg, q) {
			fmt.Fprintf(e.stderr, "warning: %s for the pool %q of %q, where this file keeps none: %s be stuck\n",
				messages(q.Messages, "waits", "wait"), q.Pool, q.Service, map[bool]string{true: "it would", false: "they would"}[q.Messages == 1])
		}
	}
}

// messages says that so many do something.
func messages(n int64, one, many string) string {
	if n == 1 {
		return "1 message " + one
	}
	return fmt.Sprintf("%d messages %s", n, many)
}

// keeps says whether messages can go on to where they wait for.
func keeps(cfg *config.Config, q edge.QueueStatus) bool {
	i := slices.IndexFunc(cfg.Services, func(s *service.Service) bool { return s.Name == q.Service })
	if i < 0 {
		return false
	}
	s, ok := cfg.Services[i].Options.(service.Sender)
	return ok && slices.Contains(s.SendsTo(), q.Pool)
}
