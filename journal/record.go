// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

const (
	magic      = "kyozonj1"
	fileHeader = len(magic) + 8 + 8 + 4
	recHeader  = 4 + 4 + 8 + 1

	// settled is the kind of a record which says that the one whose id it bears is settled. It has no data.
	settled Kind = 0
)

// errTorn means that what is read is not, or not wholly, what was written.
var errTorn = errors.New("journal: torn record")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // the library makes it once

// sizeOf returns how long a record of data is on disk. Returns ErrTooLong.
func sizeOf(data [][]byte) (int64, error) {
	size := 0
	for _, d := range data {
		size += len(d)
		if size > MaxData {
			return 0, ErrTooLong
		}
	}
	return int64(recHeader + size), nil
}

// encode returns a record as it is on disk. Returns ErrTooLong.
func encode(id ID, kind Kind, data [][]byte) ([]byte, error) {
	size, err := sizeOf(data)
	if err != nil {
		return nil, err
	}
	return appendRecord(make([]byte, 0, size), id, kind, data), nil
}

// appendRecord appends a record that is not too long as it is on disk.
func appendRecord(dst []byte, id ID, kind Kind, data [][]byte) []byte {
	from := len(dst)
	dst = append(dst, make([]byte, recHeader)...)
	for _, d := range data {
		dst = append(dst, d...)
	}
	raw := dst[from:]
	binary.LittleEndian.PutUint32(raw[4:], uint32(len(raw)-recHeader))
	binary.LittleEndian.PutUint64(raw[8:], uint64(id))
	raw[16] = byte(kind)
	binary.LittleEndian.PutUint32(raw, crc32.Checksum(raw[4:], castagnoli()))
	return dst
}

// header is the beginning of a record.
type header struct {
	sum  uint32
	size int64 // of the whole record
	id   ID
	kind Kind
}

// decodeHeader returns errTorn if there can be no such record.
func decodeHeader(b []byte) (header, error) {
	size := binary.LittleEndian.Uint32(b[4:])
	h := header{
		sum:  binary.LittleEndian.Uint32(b),
		size: int64(size) + int64(recHeader),
		id:   ID(binary.LittleEndian.Uint64(b[8:])),
		kind: Kind(b[16]),
	}
	if size > MaxData || h.id == 0 || h.kind == settled && size > 0 {
		return h, errTorn
	}
	return h, nil
}

// decode returns the record in raw, which is all of it. Returns errTorn. The data is a part of raw.
func decode(raw []byte) (Record, error) {
	if len(raw) < recHeader {
		return Record{}, errTorn
	}
	h, err := decodeHeader(raw)
	if err != nil || h.size != int64(len(raw)) || h.sum != crc32.Checksum(raw[4:], castagnoli()) {
		return Record{}, errTorn
	}
	return Record{ID: h.id, Kind: h.kind, Data: raw[recHeader:]}, nil
}

// beginning is what stands at the front of a file.
type beginning struct {
	number uint64
	above  ID // no record in the files before has this id or a higher one
}

func (b beginning) encode() []byte {
	raw := binary.LittleEndian.AppendUint64([]byte(magic), b.number)
	raw = binary.LittleEndian.AppendUint64(raw, uint64(b.above))
	return binary.LittleEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli()))
}

// scan reads a file and calls fn for each record, where it is, and its data, which are good until fn returns, up to the first
// that is not whole: length is where that is. A file with a torn beginning has the length 0. err is one of reading.
func scan(r io.Reader, fn func(h header, at int64, data []byte)) (b beginning, length int64, err error) {
	buffered := bufio.NewReaderSize(r, 256<<10)
	raw := make([]byte, fileHeader, 64<<10)
	if _, err := io.ReadFull(buffered, raw); err != nil {
		return b, 0, notEnd(err)
	}
	b.number = binary.LittleEndian.Uint64(raw[8:])
	b.above = ID(binary.LittleEndian.Uint64(raw[16:]))
	if string(raw) != string(b.encode()) {
		return b, 0, nil
	}
	for length = int64(fileHeader); ; {
		raw = raw[:recHeader]
		if _, err := io.ReadFull(buffered, raw); err != nil {
			return b, length, notEnd(err)
		}
		h, err := decodeHeader(raw)
		if err != nil {
			return b, length, nil
		}
		if int64(cap(raw)) < h.size {
			raw = append(make([]byte, 0, h.size), raw...)
		}
		raw = raw[:h.size]
		if _, err := io.ReadFull(buffered, raw[recHeader:]); err != nil {
			return b, length, notEnd(err)
		}
		if crc32.Checksum(raw[4:], castagnoli()) != h.sum {
			return b, length, nil
		}
		fn(h, length, raw[recHeader:])
		length += h.size
	}
}

// notEnd returns err, unless it is only that there is no more.
func notEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
