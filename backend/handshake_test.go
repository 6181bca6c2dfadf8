// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

func TestHandshakeReason(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want metrics.Reason
	}{
		{relay.ErrBusy, metrics.TLSBusy},
		{io.EOF, metrics.TLSReset},
		{fmt.Errorf("tls: %w", io.ErrUnexpectedEOF), metrics.TLSReset},
		{os.NewSyscallError("read", syscall.ECONNRESET), metrics.TLSReset},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(48)}, metrics.TLSRejected},
		{&net.OpError{Op: "local error", Err: tls.AlertError(10)}, metrics.TLSRefused},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, metrics.TLSFault},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, metrics.TLSRefused},
		{errors.New("tls: client didn't provide a certificate"), metrics.TLSRefused},
	} {
		if got := handshakeReason(tt.err); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
	}
}
