// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/kyozon/kyozon/config"
)

// Commands are what the control socket can ask of the process around the edge.
type Commands struct {
	Reload  func() (Done, error)
	Upgrade func() (Done, error)
	Stop    func(detach bool) // detach: remove the kernel plane too
}

// Done is what was done.
type Done struct {
	Text     string          `json:"text"`
	Warnings []*config.Error `json:"warnings,omitempty"` // of the site file
}

// Refused is the answer to what was not done because of the site file. Any other error is answered in words.
type Refused struct {
	Mistakes []*config.Error `json:"mistakes"`
}

// maxFlowsShown bounds how many flows one answer lists.
const maxFlowsShown = 100_000

// Control serves the control socket at path until ctx is done: what the nouns of the command line read and what its
// verbs ask for. Only the user that the edge runs as, and root, can open it; the file's mode says so. listening is called
// when whoever asks from now on gets this process.
func (e *Edge) Control(ctx context.Context, path string, do Commands, listening func()) error {
	l, err := listenControl(path)
	if err != nil {
		return err
	}
	listening()
	s := &http.Server{Handler: e.controlHandler(do), ReadHeaderTimeout: 5 * time.Second}
	stopped := context.AfterFunc(ctx, func() { s.Close() })
	defer stopped()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

// listenControl makes the socket beside its place and moves it there, so that a process which replaces another takes
// the place over without a moment in which nobody answers.
func listenControl(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	os.Remove(fresh) // left by a process that had our number
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		l.Close()
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return l, nil
}

func (e *Edge) controlHandler(do Commands) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, e.Status(), nil) })
	mux.HandleFunc("GET /flows", func(w http.ResponseWriter, r *http.Request) {
		limit, err := strconv.Atoi(r.FormValue("limit"))
		if err != nil || limit <= 0 || limit > maxFlowsShown {
			limit = maxFlowsShown
		}
		answer(w, e.Flows(limit), nil)
	})
	mux.HandleFunc("GET /ledger", func(w http.ResponseWriter, r *http.Request) {
		a, err := netip.ParseAddr(r.FormValue("address"))
		if err != nil {
			answer(w, nil, fmt.Errorf("not an address: %q", r.FormValue("address")))
			return
		}
		var at time.Time
		if text := r.FormValue("at"); text != "" {
			if at, err = time.Parse(time.RFC3339, text); err != nil {
				answer(w, nil, fmt.Errorf("not a time: %q", text))
				return
			}
		}
		records, err := e.Who(a, at)
		answer(w, records, err)
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, _ *http.Request) {
		done, err := do.Reload()
		answer(w, done, err)
	})
	mux.HandleFunc("POST /upgrade", func(w http.ResponseWriter, _ *http.Request) {
		done, err := do.Upgrade()
		answer(w, done, err)
	})
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) {
		answer(w, Done{Text: "draining"}, nil)
		do.Stop(r.FormValue("detach") != "")
	})
	e.controlQueue(mux)
	e.controlTelephony(mux)
	return mux
}

// answer writes v as JSON; or mistakes in the site file as JSON, with their lines; or another error as text.
func answer(w http.ResponseWriter, v any, err error) {
	mistakes := config.Errors(err)
	if err != nil && len(mistakes) == 0 {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		v = Refused{mistakes}
	}
	json.NewEncoder(w).Encode(v) // an error means that the asker has gone
}
