// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kyozon/kyozon/protocol/phone/saved"
	"github.com/kyozon/kyozon/state"
)

// formerBindings is the store in which versions until November 2026 kept bindings, with a key for each address of record, and
// one for when the process was last there.
const (
	formerBindings = "bindings.db"
	formerKey      = "b/"
	formerLast     = "last"
)

// readFormerLocked takes up what such a version has left, which is written to the journal as if it had changed. Where both have an
// address of record, it counts whose process was there later, which is that of the journal until ours: a process that was killed
// before it had taken up all, or an older version that was put back.
func (b *bindings) readFormerLocked(ours, now int64) error {
	path := filepath.Join(b.directory, formerBindings)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	store, err := state.Open(path)
	if err != nil {
		return err
	}
	last, broken := int64(0), 0
	err = store.Each([]byte(formerLast), func(e state.Entry) error {
		if len(e.Value) == 8 {
			last = int64(binary.LittleEndian.Uint64(e.Value))
		}
		return nil
	})
	err = errors.Join(err, store.Each([]byte(formerKey), func(e state.Entry) error {
		aor := strings.TrimPrefix(string(e.Key), formerKey)
		if b.kept[aor] != 0 && ours >= last {
			return nil
		}
		all, err := saved.ParseBindings(e.Value, min(last, now)+int64(beat.Seconds()), now)
		if err != nil {
			broken++
		}
		b.put(aor, all)
		b.note(aor)
		return nil
	}))
	if broken > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %s: %w", broken, formerBindings, saved.ErrForm))
	}
	b.former = true
	return errors.Join(err, store.Close())
}

// dropFormerLocked removes the store when all that it had is in the journal.
func (b *bindings) dropFormerLocked() {
	if !b.former {
		return
	}
	b.former = false
	if err := os.Remove(filepath.Join(b.directory, formerBindings)); err != nil {
		b.log.Error("store of an earlier version", "err", err)
	}
}
