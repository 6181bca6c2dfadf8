#!/bin/sh
# Copyright the kyozon authors.
# SPDX-License-Identifier: Apache-2.0

# Becomes systemd, with the unit that is beside this file, on a host of a lab: boot.sh CGROUP BINARY. The host's own /run
# and /var/lib are in memory; what else systemd and the unit write to is put there too, over what the machine has.

set -eu
cgroup=$1 binary=$2 files=$(dirname "$0")

for dir in etc usr; do
	mkdir -p /run/over/$dir /run/over/$dir.work
	mount -t overlay -o "lowerdir=/$dir,upperdir=/run/over/$dir,workdir=/run/over/$dir.work" overlay /$dir
done
mkdir -p /etc/systemd/system /etc/kyozon
mount -t tmpfs tmpfs /etc/systemd/system # none of this machine's services
mkdir /etc/systemd/system/kyozon.service.d
install -m 755 "$binary" /usr/bin/kyozon
install -m 644 "$files"/kyozon.service "$files"/kyozon-media.service /etc/systemd/system/
install -m 644 "$files"/kyozon.sysusers /usr/lib/sysusers.d/kyozon.conf
systemd-sysusers
printf '[Service]\nStandardError=append:/run/kyozon.log\n' >/etc/systemd/system/kyozon.service.d/log.conf

# As little as has the unit run: no journal, no login.
mkdir /run/units
for unit in sysinit.target basic.target shutdown.target network-online.target multi-user.target; do
	cp /usr/lib/systemd/system/$unit /run/units/
done
ln -s basic.target /run/units/default.target

mkdir -p /run/dev/shm /run/dev/mqueue /run/dev/pts
for device in null zero full random urandom tty; do
	touch /run/dev/$device
	mount --bind /dev/$device /run/dev/$device
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts /run/dev/pts
ln -s pts/ptmx /run/dev/ptmx

echo $$ >"$cgroup"/cgroup.procs
exec unshare --pid --cgroup --mount-proc --fork --kill-child sh -c '
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mount -t bpf bpf /sys/fs/bpf
	mount -t tmpfs tmpfs /tmp
	mount -t tmpfs tmpfs /var/tmp
	mount --rbind /run/dev /dev
	exec env -i container=lab PATH=/usr/sbin:/usr/bin SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units \
		/usr/lib/systemd/systemd --system --show-status=no --default-standard-output=null'
