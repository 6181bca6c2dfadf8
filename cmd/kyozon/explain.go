// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/kyozon/kyozon/admin"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/protocol/phone"
	"github.com/kyozon/kyozon/service"
)

// errNoNumbers means that no service of a file has numbers.
var errNoNumbers = errors.New("no phone service has numbers")

// explanation is why a service treats a call as it does.
type explanation struct {
	Service string   `json:"service"`
	Steps   []string `json:"steps"`
}

func (e *env) explainCommand() *cobra.Command {
	var from, control string
	var asJSON bool
	c := &cobra.Command{
		Use: "explain NUMBER FILE | explain CALL", Short: "Why a call goes where it does, and its media too", Args: cobra.RangeArgs(1, 2),
		Long: "Why a call to NUMBER, as it is dialled, goes where it does by the site file FILE: what the number is, and which\n" +
			"route it has. With one argument: why CALL, which is under way, goes as it does, its media too; by the ID that\n" +
			"`kyozon calls` shows, or the Call-ID of one of its legs.",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return e.explainCall(c.Context(), control, args[0], asJSON)
			}
			cfg, err := config.Load(args[1], protocols())
			if err != nil {
				return err
			}
			all, err := explain(cfg, args[0], from)
			if err != nil {
				return err
			}
			if asJSON {
				return e.writeJSON(all)
			}
			for _, x := range all {
				fmt.Fprintf(e.stdout, "%s:\n", x.Service)
				for _, step := range x.Steps {
					fmt.Fprintf(e.stdout, "  %s\n", step)
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&from, "from", "", "the number of who calls")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	e.controlFlag(c, &control)
	return c
}

// explainCall asks the running kyozon about a call.
func (e *env) explainCall(ctx context.Context, control, call string, asJSON bool) error {
	var x service.Explanation
	if err := ask(ctx, control, "GET", "/calls/explain?"+url.Values{"call": {call}}.Encode(), &x); err != nil {
		return err
	}
	if asJSON {
		return e.writeJSON(x)
	}
	return admin.WriteExplanation(e.stdout, &x, e.style())
}

// explain asks each phone service that has numbers.
func explain(cfg *config.Config, number, from string) (all []explanation, err error) {
	for _, s := range cfg.Services {
		o, ok := s.Options.(*phone.Options)
		if !ok {
			continue
		}
		if steps := o.Explain(number, from); steps != nil {
			all = append(all, explanation{s.Name, steps})
		}
	}
	if all == nil {
		return nil, errNoNumbers
	}
	return all, nil
}
