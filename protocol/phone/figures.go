// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/service"
)

// surveyPatience is how long a scrape waits for what the relay says of itself, which is there at once if all is well.
const surveyPatience = time.Second

// survey asks the relay what it has and does; nil if it does not answer.
func (r *relays) survey() *control.Figures {
	c := r.client.Load()
	if c == nil {
		return nil
	}
	told := make(chan *control.Figures, 1)
	c.Survey(func(f *control.Figures, _ error) { told <- f })
	t := time.NewTimer(surveyPatience)
	defer t.Stop()
	select {
	case f := <-told:
		return f
	case <-t.C:
		return nil
	}
}

// renew has the relay read the file again that this process has read. It may be of another version, or not there: then it
// reads the file when it starts.
func (c *core) renew() {
	if client := c.relays.client.Load(); client != nil {
		client.Renew(func(err error) {
			if err != nil && client.Up() {
				c.log.Error("the relay of media keeps the networks that it had; its own log says why", "err", err)
			}
		})
	}
}

// The metrics of the relay. It has no page of its own: signalling asks it whenever somebody wants to know.
func mediaUp() service.Metric {
	return service.Metric{Name: "kyozon_media_up", Help: "1 if the relay of media answers.", Noun: "relay of media answers"}
}

func mediaCalls() service.Metric {
	return service.Metric{Name: "kyozon_media_calls_active", Help: "Calls at the relay of media.", Noun: "calls at the relay now"}
}

func mediaStreams() service.Metric {
	return service.Metric{Name: "kyozon_media_streams_active", Help: "Streams that are relayed.", Noun: "streams relayed now"}
}

func mediaLanes() service.Metric {
	return service.Metric{Name: "kyozon_media_lanes_active", Help: "Directions of streams that the kernel plane carries, at each port.",
		Noun: "directions in the kernel now"}
}

func mediaRefused() service.Metric {
	return service.Metric{Name: "kyozon_media_lanes_refused_total", Help: "Directions that the kernel plane did not take, so that they went through the process.",
		Noun: "directions refused by the kernel"}
}

func mediaPassed() service.Metric {
	return service.Metric{Name: "kyozon_media_lanes_passed_total", Help: "Packets of directions in the kernel plane that it did not carry, by reason and the family in which they came. The process had them; headers: dropped, for want of memory.",
		Noun: "packets left to the process", Labels: []string{"reason", "family"}}
}

func mediaPackets() service.Metric {
	return service.Metric{Name: "kyozon_media_packets_total", Help: "Packets relayed, by the families in which they came and left.",
		Noun: "packets relayed", Labels: []string{"from_family", "to_family", "plane"}}
}

func mediaBytes() service.Metric {
	return service.Metric{Name: "kyozon_media_bytes_total", Help: "Payload of the packets relayed.",
		Noun: "bytes relayed", Labels: []string{"from_family", "to_family", "plane"}}
}

func mediaDropped() service.Metric {
	return service.Metric{Name: "kyozon_media_dropped_total", Help: "Packets that the relay dropped, by reason; stranger: from somebody who is not expected.",
		Noun: "packets not relayed", Labels: []string{"reason"}}
}

func mediaLatched() service.Metric {
	return service.Metric{Name: "kyozon_media_latched_total", Help: "Ends that were heard for the first time, or from elsewhere: exactly as described, at another port near it, or where their signalling comes from.",
		Noun: "ends heard", Labels: []string{"how"}}
}

func mediaUsed() service.Metric {
	return service.Metric{Name: "kyozon_media_addresses_used", Help: "Pairs of ports, or addresses of a prefix, that calls have.",
		Noun: "media addresses in use", Labels: []string{"network", "family"}}
}

func mediaSize() service.Metric {
	return service.Metric{Name: "kyozon_media_addresses", Help: "Pairs of ports that there are; a prefix has always enough.",
		Noun: "media addresses there are", Labels: []string{"network", "family"}}
}

// figures returns what the relay says of itself.
func (r *relays) figures() (all []service.Count) {
	f := r.survey()
	if f == nil {
		return []service.Count{{Metric: mediaUp()}}
	}
	add := func(m service.Metric, value uint64, labels ...string) {
		all = append(all, service.Count{Metric: m, Values: labels, Value: int64(value)})
	}
	add(mediaUp(), 1)
	add(mediaCalls(), f.Calls)
	add(mediaStreams(), f.Streams)
	add(mediaLanes(), f.Lanes)
	add(mediaRefused(), f.Refused)
	for _, why := range control.Fates() {
		for _, came := range []ip.Family{ip.V4, ip.V6} {
			add(mediaPassed(), *f.Passed.Of(why, came), why.String(), came.String())
		}
	}
	for _, p := range control.Planes() {
		for i, x := range ip.Crossings() {
			n := f.Carried[p][i]
			add(mediaPackets(), n.Packets, x.Client.String(), x.Backend.String(), p.String())
			add(mediaBytes(), n.Bytes, x.Client.String(), x.Backend.String(), p.String())
		}
	}
	for _, d := range control.Drops() {
		add(mediaDropped(), f.Dropped[d], d.String())
	}
	for _, l := range control.Latchings() {
		add(mediaLatched(), f.Latched[l], l.String())
	}
	for i := range f.Networks {
		n := &f.Networks[i]
		name, family := service.MediaNetwork(n.Name), n.Family().String()
		add(mediaUsed(), n.Used, name, family)
		if n.Size > 0 {
			add(mediaSize(), n.Size, name, family)
		}
	}
	return all
}
