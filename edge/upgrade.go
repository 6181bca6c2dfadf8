// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/config"
)

// How one process replaces another. The old one starts the new binary, hands it the listening sockets, and talks to
// it over a socket pair, a word a line:
//
//	new ─ "built" ──▶ old   the file is read, the sockets are there
//	old ─ "legacy" ─▶ new   what a protocol leaves, if it leaves anything: see Legacies
//	old ─ "go" ─────▶ new   the old one takes nobody new and has closed the ledger; its UDP flows follow
//	new ─ "serving" ▶ old   the new one takes clients: the old one drains and ends
//
// Clients that come between "go" and "serving" wait in the sockets. If the new one ends or says nothing in time, the
// old one opens the ledger again and goes on.
const (
	// UpgradeEnv names the descriptors of the talk and of the UDP flows in the new process's environment.
	UpgradeEnv = "KYOZON_UPGRADE_FDS"

	upgradePatience = 60 * time.Second

	// mistakesWord is what comes before the mistakes in the site file, as JSON, for which the new one gives up.
	mistakesWord = "mistakes "
)

// errUpgrade means that the new process did not get as far as serving.
var errUpgrade = errors.New("edge: the new process failed; this one goes on")

// Upgrade starts binary with the arguments of this process in its place and returns its process number when it
// serves. The caller then ends this process by draining it. If the new process fails before that, ended has the reason:
// nobody else is told. On error this process runs on.
func (e *Edge) Upgrade(binary string) (pid int, ended <-chan error, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	child, talk, flows, err := e.startSuccessor(binary)
	if err != nil {
		return 0, nil, fmt.Errorf("upgrade: %w", err)
	}
	defer talk.Close()
	defer unix.Close(flows)
	fail := func(err error) (int, <-chan error, error) {
		child.Process.Kill()
		child.Wait()
		return 0, nil, fmt.Errorf("upgrade: %w", err)
	}
	words := bufio.NewReader(talk)
	if err := expect(talk, words, "built"); err != nil {
		return fail(err)
	}
	if err := e.standBackLocked(); err != nil {
		e.standUpLocked()
		return fail(err)
	}
	err = e.sendLegaciesLocked(talk)
	if err == nil {
		_, err = talk.WriteString("go\n")
	}
	if err == nil {
		err = e.sendFlowsLocked(flows)
	}
	if err == nil {
		err = expect(talk, words, "serving")
	}
	if err != nil {
		_, _, err = fail(err)
		return 0, nil, errors.Join(err, e.standUpLocked())
	}
	for _, d := range e.doors {
		d.handOver()
	}
	e.replaced = true
	failed := make(chan error, 1) // we may have ended by then, or not listen
	go func() {
		if err := child.Wait(); err != nil { // it outlives us; if it ends first, it must not stay a zombie
			failed <- fmt.Errorf("process %d, which had taken over: %w", child.Process.Pid, err)
		}
	}()
	return child.Process.Pid, failed, nil
}

func (e *Edge) startSuccessor(binary string) (child *exec.Cmd, talk *os.File, flows int, err error) {
	files, env, err := e.sockets.Files()
	if err != nil {
		return nil, nil, -1, err
	}
	c := exec.Command(binary, os.Args[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.ExtraFiles = files
	defer func() {
		for _, f := range c.ExtraFiles {
			f.Close()
		}
	}()
	ours, err := addPair(c, unix.SOCK_STREAM)
	if err != nil {
		return nil, nil, -1, err
	}
	talk = os.NewFile(uintptr(ours), "upgrade")
	if flows, err = addPair(c, unix.SOCK_SEQPACKET); err != nil {
		talk.Close()
		return nil, nil, -1, err
	}
	c.Env = append(os.Environ(), env, fmt.Sprintf("%s=%d,%d", UpgradeEnv, 3+len(files), 4+len(files)))
	if err := c.Start(); err != nil {
		talk.Close()
		unix.Close(flows)
		return nil, nil, -1, err
	}
	return c, talk, flows, nil
}

// addPair gives the child one end of a socket pair and returns the other.
func addPair(child *exec.Cmd, kind int) (ours int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	child.ExtraFiles = append(child.ExtraFiles, os.NewFile(uintptr(pair[1]), "upgrade"))
	return pair[0], nil
}

// hear waits for a word, which should be want.
func hear(talk *os.File, words *bufio.Reader, want string) (string, error) {
	talk.SetReadDeadline(time.Now().Add(upgradePatience))
	got, err := words.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%w: waited for %q: %v", errUpgrade, want, err)
	}
	return strings.TrimSpace(got), nil
}

// expect waits for one word.
func expect(talk *os.File, words *bufio.Reader, want string) error {
	got, err := hear(talk, words, want)
	if err != nil {
		return err
	}
	if text, is := strings.CutPrefix(got, mistakesWord); is {
		var mistakes []*config.Error
		if err := json.Unmarshal([]byte(text), &mistakes); err == nil && len(mistakes) > 0 {
			return fmt.Errorf("%w: %w", errUpgrade, config.Join(mistakes))
		}
	}
	if got != want {
		return fmt.Errorf("%w: %s", errUpgrade, got)
	}
	return nil
}

// standBackLocked takes nobody new and lets another process have the ledger.
func (e *Edge) standBackLocked() error {
	for _, d := range e.doors {
		d.pause()
	}
	e.plane.StandBack()
	if e.ledger == nil {
		return nil
	}
	return e.ledger.Release()
}

// standUpLocked undoes standBackLocked.
func (e *Edge) standUpLocked() error {
	var errs []error
	if e.ledger != nil {
		store, err := openStore(e.generation.Load().config)
		if err == nil {
			err = e.ledger.Resume(store)
			e.store = store
		}
		errs = append(errs, err)
	}
	for _, d := range e.doors {
		errs = append(errs, d.resume(e.loops))
	}
	e.plane.StandUp()
	return errors.Join(errs...)
}

// Successor is the new process's end of an upgrade.
type Successor struct {
	talk  *os.File
	words *bufio.Reader
	flows int // descriptor
}

// OpenSuccessor returns the talk with the process that this one replaces, or nil if there is none.
func OpenSuccessor(getenv func(string) string) (*Successor, error) {
	text := getenv(UpgradeEnv)
	if text == "" {
		return nil, nil
	}
	var talk, flows int
	if _, err := fmt.Sscanf(text, "%d,%d", &talk, &flows); err != nil {
		return nil, fmt.Errorf("%s is %q, want two descriptors", UpgradeEnv, text)
	}
	for _, fd := range []int{talk, flows} {
		unix.CloseOnExec(fd)
		unix.SetNonblock(fd, true) // a descriptor that is none fails when it is used
	}
	f := os.NewFile(uintptr(talk), "upgrade")
	return &Successor{talk: f, words: bufio.NewReader(f), flows: flows}, nil
}

// Built says that the configuration is good and the sockets are here, waits until the old process has stood back, and
// returns what it leaves, for Options: its UDP flows, and what its protocols have to tell.
func (s *Successor) Built() (Flows, Legacies, error) {
	if _, err := s.talk.WriteString("built\n"); err != nil {
		return nil, nil, fmt.Errorf("upgrade: %w", err)
	}
	legacies, err := s.legacies()
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(s.flows)
	flows, err := receiveFlows(s.flows)
	return flows, legacies, err
}

// Serving says that this process takes clients.
func (s *Successor) Serving() error {
	_, err := s.talk.WriteString("serving\n")
	return errors.Join(err, s.talk.Close())
}

// Fail says why this process cannot replace the old one.
func (s *Successor) Fail(cause error) {
	word := strings.ReplaceAll(cause.Error(), "\n", "; ")
	if mistakes := config.Errors(cause); len(mistakes) > 0 {
		if text, err := json.Marshal(mistakes); err == nil {
			word = mistakesWord + string(text)
		}
	}
	s.talk.WriteString(word + "\n") // the old one may be gone
	s.talk.Close()
}
