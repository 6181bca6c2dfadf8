#!/bin/sh
# Copyright the kyozon authors.
# SPDX-License-Identifier: Apache-2.0

# Installs the real servers and tools that the tests use, if they are missing and we are root; says which are
# missing if we are not. Nothing that it installs is started: a machine that runs the tests is not a web server.

set -eu

# Each line: a command (or a path with a pattern) and the package that has it.
needs='
nginx                                 nginx-light
/usr/lib/nginx/modules/ngx_stream_module.so libnginx-mod-stream
haproxy                               haproxy
/usr/lib/postgresql/*/bin/postgres    postgresql
curl                                  curl
ip                                    iproute2
nft                                   nftables
wrk                                   wrk
h2load                                nghttp2-client
chromium                              chromium
ps                                    procps
ethtool                               ethtool
iperf3                                iperf3
tcpdump                               tcpdump
openssl                               openssl
clang-14                              clang-14
llvm-strip-14                         llvm-14
/usr/lib/systemd/systemd              systemd
postfix                               postfix
swaks                                 swaks
/usr/share/perl5/IO/Socket/INET6.pm   libio-socket-inet6-perl
/usr/lib/*/perl5/*/Net/SSLeay.pm      libnet-ssleay-perl
sqlite3                               sqlite3
rbldnsd                               rbldnsd
rspamd                                rspamd
clamd                                 clamav-daemon
/usr/lib/nginx/modules/ngx_mail_module.so libnginx-mod-mail
/usr/lib/dovecot/imap-login            dovecot-imapd
/usr/lib/dovecot/pop3-login            dovecot-pop3d
/usr/lib/dovecot/lmtp                  dovecot-lmtpd
/usr/lib/dovecot/submission            dovecot-submissiond
mbsync                                isync
fetchmail                             fetchmail
rtpengine                             rtpengine-daemon
baresip                               baresip-core
sipp                                  sip-tester
kamailio                              kamailio
/usr/lib/*/libidn.so.12               libidn12
/usr/lib/libspf2.so.2                 libspf2-2
/usr/lib/*/libevent-2.1.so.7          libevent-2.1-7
'

# Packages that exclude others, and so are only unpacked: internal/servertest runs them where they lie.
apart='exim4-daemon-light exim4-daemon-heavy opensmtpd'
unpack=/opt/kyozon-test

# Servers are in sbin, which is not in everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin

missing=$(echo "$needs" | while read -r command package; do
	[ -n "$command" ] || continue
	# shellcheck disable=SC2086 # the pattern must be expanded
	case $command in
	/*) set -- $command && [ -e "$1" ] || echo "$package" ;;
	*) command -v "$command" >/dev/null || echo "$package" ;;
	esac
done)
missing=$(echo $missing)
packed=$(for package in $apart; do [ -e "$unpack/$package" ] || echo "$package"; done)

[ -n "$missing$packed" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "setup: missing for the tests with real servers, which are skipped: $missing $packed"
	[ -z "$missing" ] || echo "setup: to have them: sudo apt-get install --no-install-recommends $missing"
	exit 0
fi
if ! command -v apt-get >/dev/null; then
	echo "setup: missing, and there is no apt-get to install it with: $missing $packed" >&2
	exit 1
fi

# invoke-rc.d asks this file whether a newly installed service may start (Debian policy §9.3.3.2).
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
	trap 'rm -f $policy' EXIT
	trap 'exit 1' INT TERM
fi

echo "setup: installing" $missing $packed
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
debs=$(mktemp -d)
chmod 755 "$debs"

install() {
	apt-get update
	[ -z "$missing" ] || apt-get install -y --no-install-recommends $missing
	for package in $packed; do
		(cd "$debs" && apt-get download "$package")
		dpkg-deb -x "$debs/$package"_*.deb "$debs/$package"
		mkdir -p "$unpack"
		mv "$debs/$package" "$unpack/$package"
	done
}

set +e # a subshell that stands in a condition would go on after an error
(set -e; install) >"$log" 2>&1 </dev/null
failed=$?
set -e
if [ $failed != 0 ]; then
	tail -n 20 "$log" >&2
	echo "setup: apt-get could not install:" $missing $packed >&2
fi
rm -rf "$log" "$debs"
exit $failed
