// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package users

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// source answers as its function does, and counts.
type source struct {
	ask    func(ctx context.Context, user string) (string, error)
	asked  atomic.Int64
	closed atomic.Int64
}

func (s *source) Ask(ctx context.Context, user string) (string, error) {
	s.asked.Add(1)
	return s.ask(ctx, user)
}

func (s *source) Close() { s.closed.Add(1) }

// finds looks a user up and waits for the answer.
func finds(r *Remote, user string) string {
	got := make(chan string, 1)
	r.Find(user, func(answer string, err error) {
		if err != nil {
			answer = "error: " + err.Error()
		}
		got <- answer
	})
	return <-got
}

// TestRemote: an answer is remembered as long as it may be, also that there is none; a failure is not.
func TestRemote(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var broken error
		s := &source{ask: func(_ context.Context, user string) (string, error) {
			return strings.TrimPrefix(user, "nobody"), broken
		}}
		r := NewRemote(s, Options{Keep: time.Minute, Timeout: time.Second})
		defer r.Close()
		known := func(user, want string, wantOK bool) {
			t.Helper()
			if got, ok := r.Known(user); got != want || ok != wantOK {
				t.Errorf("%s is known as %q, %v, want %q, %v", user, got, ok, want, wantOK)
			}
		}
		known("a", "", false)
		for user, want := range map[string]string{"a": "a", "nobody": "", "long" + strings.Repeat("x", MaxAnswer): "error: " + ErrAnswer.Error(),
			"\n\x02": "error: " + ErrAnswer.Error()} {
			if got := finds(r, user); got != want {
				t.Errorf("%.20q: got %q, want %q", user, got, want)
			}
		}
		known("a", "a", true)
		known("nobody", "", true)
		known("\n\x02", "", false)
		time.Sleep(time.Minute - 1)
		known("a", "a", true)
		time.Sleep(time.Nanosecond)
		known("a", "", false)
		broken = errors.New("down")
		if got := finds(r, "a"); got != "error: down" {
			t.Errorf("got %q", got)
		}
		broken = nil
		if got := finds(r, "a"); got != "a" {
			t.Errorf("after it was down: got %q", got)
		}
	})
}

// TestRemoteAtOnce: many who want to know one user are one question; a source is not asked more than it may be; who waits too
// long is told so; and beyond a number nobody waits.
func TestRemoteAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		s := &source{ask: func(ctx context.Context, user string) (string, error) {
			select {
			case <-open:
				return user, nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}}
		r := NewRemote(s, Options{Keep: time.Minute, Timeout: time.Second})
		var wg sync.WaitGroup
		var all sync.Map
		find := func(user string) {
			wg.Add(1)
			r.Find(user, func(answer string, err error) {
				n, _ := all.LoadOrStore(fmt.Sprint(answer, err), new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
				wg.Done()
			})
		}
		count := func(answer string, want int64) {
			t.Helper()
			n, _ := all.LoadOrStore(answer, new(atomic.Int64))
			if got := n.(*atomic.Int64).Load(); got != want {
				t.Errorf("%d were told %q, want %d", got, answer, want)
			}
		}
		for range 100 {
			find("same")
		}
		synctest.Wait()
		if got := s.asked.Load(); got != 1 {
			t.Errorf("asked %d times for one user", got)
		}
		for i := range waiting - 1 {
			find(fmt.Sprint(i))
		}
		synctest.Wait()
		if got := s.asked.Load(); got != atOnce {
			t.Errorf("asked %d at once, want %d", got, atOnce)
		}
		find("one too many")
		find("same")
		synctest.Wait()
		count(fmt.Sprint("", ErrBusy), 1)
		time.Sleep(time.Second)
		wg.Wait()
		count(fmt.Sprint("", context.DeadlineExceeded), 101+waiting-1)
		close(open)
		find("same")
		wg.Wait()
		count("same<nil>", 1)
		r.Close()
		if s.closed.Load() != 1 {
			t.Error("the source is not closed")
		}
		find("later") // is closed again behind it
		wg.Wait()
		synctest.Wait()
		if s.closed.Load() != 2 {
			t.Error("what was kept for who came late is left")
		}
	})
}

// TestRemoteForgets: what is remembered is bounded.
func TestRemoteForgets(t *testing.T) {
	t.Parallel()
	r := NewRemote(&source{ask: func(_ context.Context, user string) (string, error) { return user, nil }}, Options{Keep: time.Hour, Timeout: time.Minute})
	defer r.Close()
	for i := range 3 * kept {
		r.mu.Lock()
		r.keepLocked(fmt.Sprint(i), "x")
		if n := len(r.young) + len(r.last); n > kept {
			t.Fatalf("%d are remembered", n)
		}
		r.mu.Unlock()
	}
	if _, ok := r.Known(fmt.Sprint(3*kept - 1)); !ok {
		t.Error("the last one is forgotten")
	}
	if _, ok := r.Known("0"); ok {
		t.Error("the first one is not")
	}
}
