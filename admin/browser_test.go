// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"image"
	"image/color"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// TestBrowser looks at the page as people do: wide and narrow, light and dark.
func TestBrowser(t *testing.T) {
	b := openBrowser(t)
	now := time.Now()
	empty := edge.Status{Site: "empty", Version: "0.1.0", Generation: 1, Loops: 1, Started: now, Loaded: now, Ready: true}
	pictures := []struct {
		name   string
		status edge.Status
		flows  []edge.FlowStatus
		widths []int
		scheme []string
	}{
		{"trouble", statusAt(now), flowsAt(now), []int{1280, 390}, []string{"light", "dark"}},
		{"well", wellAt(now), flowsAt(now), []int{1280, 390}, []string{"light", "dark"}},
		{"long", longAt(now), flowsAt(now), []int{1280, 1220, 820, 390}, []string{"light"}},
		{"nothing", empty, nil, []int{1280, 390}, []string{"light"}},
	}
	for _, p := range pictures {
		url := serve(t, ip.V6, newFake(p.status, p.flows), new(metrics.Registry), Options{})
		for _, width := range p.widths {
			for _, scheme := range p.scheme {
				b.look(url, fmt.Sprintf("%s-%d-%s", p.name, width, scheme), view{width: width, height: 800, scheme: scheme})
			}
		}
	}
}

// look checks one view: nothing sticks out, something is drawn in the right scheme, and the console is silent.
func (b *browser) look(url, name string, v view) {
	b.t.Helper()
	tab := b.open(url, v)
	if got := tab.eval("innerWidth"); got != fmt.Sprint(v.width) {
		b.t.Fatalf("%s: the window is %s wide, want %d", name, got, v.width)
	}
	if got := tab.eval("document.scrollingElement.scrollWidth <= innerWidth"); got != "true" {
		b.t.Errorf("%s: the page is %s wide: something sticks out", name, tab.eval("document.scrollingElement.scrollWidth"))
	}
	// Nor do parts of it: all ends where the page ends, and no text is wider than its cell.
	if got := tab.eval(`(() => {
		const end = document.getElementById("main").getBoundingClientRect().right + 1;
		const hidden = e => e.closest("thead") && getComputedStyle(e.closest("thead")).position === "absolute";
		return [...document.querySelectorAll("table, td, th, .tile, .banner")].filter(e => !hidden(e))
			.filter(e => e.getBoundingClientRect().right > end || e.scrollWidth > e.clientWidth + 1)
			.map(e => e.outerHTML.slice(0, 300)).join("\n");
	})()`); got != `""` {
		b.t.Errorf("%s: these stick out: %s", name, got)
	}
	picture := tab.screenshot(name)
	if blank(picture) {
		b.t.Errorf("%s: the picture is blank", name)
	}
	r, g, bl, _ := picture.At(2, 2).RGBA()
	if dark := (r+g+bl)/3 < 0x8000; dark != (v.scheme == "dark") {
		b.t.Errorf("%s: the ground is %x %x %x", name, r, g, bl)
	}
	if c := tab.complaints(); c != nil {
		b.t.Errorf("%s: the console says %s", name, strings.Join(c, "\n"))
	}
}

// blank says whether the picture has fewer colours than text has with its smooth edges.
func blank(picture image.Image) bool {
	seen := make(map[color.Color]bool)
	for y := picture.Bounds().Min.Y; y < picture.Bounds().Max.Y; y++ {
		for x := picture.Bounds().Min.X; x < picture.Bounds().Max.X; x++ {
			if seen[picture.At(x, y)] = true; len(seen) == 20 {
				return false
			}
		}
	}
	return true
}

// TestBrowserRefreshes checks that the page follows the edge in place: new numbers, rows that come and go, and a
// node that stays is the same node, so that a selection survives.
func TestBrowserRefreshes(t *testing.T) {
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b := openBrowser(t)
		source := newFake(fixedStatus(), fixedFlows())
		tab := b.open(serve(t, f, source, new(metrics.Registry), Options{}), view{width: 1280, height: 800, scheme: "light"})
		tab.eval(`row = document.querySelector('[data-key="mail/ipv6"]'); button = document.querySelector("#live button"); 0`)

		next := wellStatus()
		next.Generation = 8
		next.Services = append(next.Services[1:2:2], next.Services[2:]...) // the IPv4 row of shop is gone
		next.Services[1].Crossings[0].Active = 777
		next.Backends = append([]edge.BackendStatus{{Service: "shop", Pool: "existing", Address: "10.0.1.9:80", Family: "ipv4", State: "up"}}, next.Backends[1:]...)
		source.status.Store(&next)
		tab.until(`document.getElementById("verdict").textContent === "ready"`)

		for check, want := range map[string]string{
			`document.title`: `"example-idc: ready"`,
			`document.querySelectorAll(".banner").length`:                                                                      `0`,
			`document.querySelectorAll("#services tbody tr:not(.why)").length`:                                                 `4`,
			`document.querySelector('[data-key="mail/ipv6"]') === row`:                                                         `true`,
			`row.querySelector('[data-label=Flows] data').textContent`:                                                         `"777"`,
			`document.querySelector("#backends tbody th").textContent`:                                                         `"10.0.1.9:80"`,
			`document.querySelectorAll("#backends tbody tr").length`:                                                           `7`,
			`document.querySelector("#live button") === button`:                                                                `true`,
			`document.querySelector("#live span").textContent`:                                                                 `"live, every 2 s"`,
			`document.querySelectorAll("#services tbody").length`:                                                              `4`,
			`new Set([...document.querySelectorAll("[id]")].map(e => e.id)).size === document.querySelectorAll("[id]").length`: `true`,
		} {
			if got := tab.eval(check); got != want {
				t.Errorf("%s is %s, want %s", check, got, want)
			}
		}
		// After the changes, the page is what a browser that opens it now would see.
		if got := tab.eval(`fetch("/").then(r => r.text()).then(text => {
			const fresh = new DOMParser().parseFromString(text, "text/html");
			const here = document.getElementById("main").cloneNode(true), there = fresh.getElementById("main");
			for (const e of [...here.querySelectorAll("time"), ...there.querySelectorAll("time")]) e.textContent = "";
			return here.isEqualNode(there);
		})`); got != "true" {
			t.Error("the page in the browser differs from a fresh one")
		}

		tab.eval("button.click()")
		if got := tab.eval(`document.querySelector("#live").textContent`); got != `"paused Go on"` {
			t.Errorf("after Pause: %s", got)
		}
		if c := tab.complaints(); c != nil {
			t.Errorf("the console says %s", strings.Join(c, "\n"))
		}
	})
}

// TestBrowserTellsWhenStale checks that old figures are not taken for new ones.
func TestBrowserTellsWhenStale(t *testing.T) {
	b := openBrowser(t)
	server := httptest.NewServer(Handler(newFake(wellStatus(), nil), new(metrics.Registry), Options{}))
	t.Cleanup(server.Close)
	tab := b.open(server.URL, view{width: 1280, height: 800, scheme: "light"})
	server.Close()
	tab.until(`document.body.classList.contains("stale")`)
	if got := tab.eval(`document.querySelector("#live span").textContent`); !strings.HasPrefix(got, `"stale: `) {
		t.Errorf("the page says %s", got)
	}
	if got := tab.eval(`document.querySelectorAll("#services tbody tr:not(.why)").length`); got != "5" {
		t.Errorf("%s rows are left, want all 5", got)
	}
}

// TestBrowserWithoutScript checks that the page is whole without JavaScript and says how it stays fresh.
func TestBrowserWithoutScript(t *testing.T) {
	b := openBrowser(t)
	url := serve(t, ip.V4, newFake(fixedStatus(), fixedFlows()), new(metrics.Registry), Options{})
	tab := b.open(url, view{width: 390, height: 800, scheme: "light", noScript: true})
	tab.screenshot("noscript-390")
	var doc struct {
		Root struct{ NodeID int }
	}
	tab.decode(tab.call("DOM.getDocument", nil), &doc)
	var html struct{ OuterHTML string }
	tab.decode(tab.call("DOM.getOuterHTML", map[string]any{"nodeId": doc.Root.NodeID}), &html)
	for _, want := range []string{`<meta http-equiv="refresh" content="10">`, "This page asks again every 10 s.", "100.64.1.17:51234"} {
		if !strings.Contains(html.OuterHTML, want) {
			t.Errorf("without script the page lacks %s", want)
		}
	}
}
