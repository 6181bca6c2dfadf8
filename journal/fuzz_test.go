// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzScan reads any file. What is found in it is written so that it is found again, and stands where it is said to.
func FuzzScan(f *testing.F) {
	whole := beginning{number: 1, above: 1}.encode()
	for n, data := range []string{"", "x", "a longer one"} {
		raw, err := encode(ID(n+1), Kind(n+1), [][]byte{[]byte(data)})
		if err != nil {
			f.Fatal(err)
		}
		whole = append(whole, raw...)
	}
	raw, err := encode(2, settled, nil)
	if err != nil {
		f.Fatal(err)
	}
	whole = append(whole, raw...)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(whole[:fileHeader])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, file []byte) {
		var again []byte
		b, length, err := scan(bytes.NewReader(file), func(h header, at int64, data []byte) {
			r, err := decode(file[at : at+h.size])
			if err != nil || !bytes.Equal(r.Data, data) {
				t.Fatalf("at %d: %q, given as %q: %v", at, r.Data, data, err)
			}
			raw, err := encode(r.ID, r.Kind, [][]byte{r.Data})
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, raw...)
		})
		if err != nil {
			t.Fatal(err)
		}
		if length > 0 {
			again = append(b.encode(), again...)
		}
		if !bytes.Equal(again, file[:length]) {
			t.Errorf("the first %d bytes are read as %x", length, again)
		}
	})
}

// FuzzDecode reads any record.
func FuzzDecode(f *testing.F) {
	raw, err := encode(7, 1, [][]byte{[]byte("data")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:recHeader])
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decode(raw)
		if err != nil {
			if !errors.Is(err, errTorn) {
				t.Error(err)
			}
			return
		}
		if again, err := encode(r.ID, r.Kind, [][]byte{r.Data}); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%x is written as %x, %v", raw, again, err)
		}
	})
}
