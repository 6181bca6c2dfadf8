// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
)

// controlFlag adds the flag that says where the control socket of a running kyozon is.
func (e *env) controlFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "control", e.defaultControl(), "socket of the running kyozon (or $KYOZON_CONTROL)")
}

func (e *env) defaultControl() string {
	if path := e.getenv("KYOZON_CONTROL"); path != "" {
		return path
	}
	if dir := e.getenv("XDG_RUNTIME_DIR"); dir != "" && os.Getuid() != 0 {
		return filepath.Join(dir, "kyozon", "control.sock")
	}
	return "/run/kyozon/control.sock"
}

// errNotRunning means that nobody answers at the control socket.
var errNotRunning = errors.New("no kyozon is running")

// ask sends one question to the running kyozon and decodes its answer into v. Mistakes in the site file come as they
// do from config.Load. Returns errNotRunning.
func ask(ctx context.Context, control, method, what string, v any) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", control)
		},
	}, Timeout: 2 * time.Minute}
	r, err := http.NewRequestWithContext(ctx, method, "http://kyozon"+what, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w with the socket %s; if it has another, name it with --control", errNotRunning, control)
	case err != nil:
		return fmt.Errorf("ask the running kyozon: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("ask the running kyozon: %w", err)
	}
	if answer.StatusCode == http.StatusOK {
		return json.Unmarshal(body, v)
	}
	var refused edge.Refused
	if json.Unmarshal(body, &refused) == nil && len(refused.Mistakes) > 0 {
		return config.Join(refused.Mistakes)
	}
	return errors.New(strings.TrimSpace(string(body)))
}
