// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kyozon/kyozon/admin"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/service"
)

// inquiry is what a noun asks for: by the names of its flags.
type inquiry struct {
	path   string
	flags  []string
	values []string
	limit  int
}

// flag adds one that is in the inquiry.
func (q *inquiry) flag(c *cobra.Command, name, usage string) {
	q.flags, q.values = append(q.flags, name), append(q.values, "")
	at := len(q.values) - 1
	c.Flags().Func(name, usage, func(s string) error {
		q.values[at] = s
		return nil
	})
}

// ask returns the inquiry, with one more value if it is not empty.
func (q *inquiry) ask(name, value string) string {
	all := url.Values{"limit": {strconv.Itoa(q.limit)}}
	for i, f := range q.flags {
		if q.values[i] != "" {
			all.Set(f, q.values[i])
		}
	}
	if value != "" {
		all.Set(name, value)
	}
	return q.path + "?" + all.Encode()
}

// first returns the first of some arguments, or "".
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func (e *env) callsCommand() *cobra.Command {
	q := &inquiry{path: "/calls"}
	c := e.noun("calls [NUMBER]", "Calls under way", func(c *cobra.Command, args []string, control string) (any, func() error, error) {
		var all []service.Call
		err := ask(c.Context(), control, "GET", q.ask("number", first(args)), &all)
		return all, func() error { return admin.WriteCalls(e.stdout, all, e.style()) }, err
	})
	c.Args = cobra.MaximumNArgs(1)
	c.Long = "Calls under way, the newest first; with NUMBER those from it and to it. The age is that of the answer, if there is one."
	c.Flags().IntVar(&q.limit, "limit", 1000, "how many")
	q.flag(c, "service", "only those of one service")
	q.flag(c, "state", "only those that are calling, ringing or answered")
	q.flag(c, "network", "only those with an end in a network")
	q.flag(c, "family", "only those with an end in ipv4 or ipv6")
	q.flag(c, "trunk", "only those by a trunk")
	c.AddCommand(e.dropCommand())
	return c
}

func (e *env) dropCommand() *cobra.Command {
	var control string
	c := &cobra.Command{
		Use: "drop ID", Short: "End a call: both ends hear that it is over", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var done edge.Done
			if err := ask(c.Context(), control, "POST", "/calls/drop?"+url.Values{"id": args}.Encode(), &done); err != nil {
				return err
			}
			_, err := fmt.Fprintln(e.stdout, done.Text)
			return err
		},
	}
	e.controlFlag(c, &control)
	return c
}

func (e *env) subscribersCommand() *cobra.Command {
	q := &inquiry{path: "/subscribers"}
	c := e.noun("subscribers [NAME]", "Where subscribers of telephony are reached", func(c *cobra.Command, args []string, control string) (any, func() error, error) {
		var all []service.Registration
		err := ask(c.Context(), control, "GET", q.ask("name", first(args)), &all)
		return all, func() error {
			if len(args) > 0 {
				return admin.WriteSubscriber(e.stdout, all, e.style())
			}
			return admin.WriteRegistrations(e.stdout, all, e.style())
		}, err
	})
	c.Args = cobra.MaximumNArgs(1)
	c.Long = "The addresses that subscribers have registered; with NAME all that is known of those of one."
	c.Flags().IntVar(&q.limit, "limit", 1000, "how many")
	q.flag(c, "service", "only those of one service")
	q.flag(c, "network", "only those in a network")
	q.flag(c, "family", "only those over ipv4 or ipv6")
	return c
}
