// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/png" // decodes screenshots
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// browser is a Chromium without a window, spoken to over two pipes in the DevTools protocol: JSON, each message
// ended by a zero byte. It is used by one goroutine.
type browser struct {
	t      *testing.T
	to     *os.File
	from   *bufio.Reader
	last   int
	events []event // that came while an answer was awaited
}

// event is what Chromium sends: an answer if ID is set, else news.
type event struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
	Session string `json:"sessionId"`
}

// openBrowser starts Chromium, or skips the test if there is none. KYOZON_LAB=require makes that a failure.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := findChromium()
	if err != nil {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	cmd := exec.CommandContext(ctx, path, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--hide-scrollbars", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // descriptors 3 and 4
	cmd.WaitDelay = 10 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	b := &browser{t: t, to: in, from: bufio.NewReaderSize(out, 1<<20)}
	t.Cleanup(func() {
		b.call("", "Browser.close", nil)
		if err := cmd.Wait(); err != nil {
			t.Logf("chromium: %v\n%s", err, stderr.Bytes())
		}
		cancel()
		in.Close()
		out.Close()
	})
	return b
}

func findChromium() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("find Chromium: none of chromium, chromium-browser, google-chrome is installed")
}

// call asks the browser, or with a session a tab, and returns the result.
func (b *browser) call(session, method string, params any) json.RawMessage {
	b.t.Helper()
	b.last++
	ask, err := json.Marshal(map[string]any{"id": b.last, "method": method, "params": params, "sessionId": session})
	if session == "" {
		ask, err = json.Marshal(map[string]any{"id": b.last, "method": method, "params": params})
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(ask, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		e := b.read()
		if e.ID != b.last {
			b.events = append(b.events, e)
			continue
		}
		if e.Error != nil {
			b.t.Fatalf("%s: %s", method, e.Error.Message)
		}
		return e.Result
	}
}

func (b *browser) read() event {
	b.t.Helper()
	message, err := b.from.ReadBytes(0)
	if err != nil {
		b.t.Fatalf("read from Chromium: %v", err)
	}
	var e event
	if err := json.Unmarshal(message[:len(message)-1], &e); err != nil {
		b.t.Fatal(err)
	}
	return e
}

// tab is one page of the browser.
type tab struct {
	*browser
	session string
}

// view is how a tab is looked at.
type view struct {
	width, height int
	scheme        string // light or dark
	noScript      bool
}

// open shows url in a new tab and waits until it has loaded.
func (b *browser) open(url string, v view) *tab {
	b.t.Helper()
	var target struct{ TargetID string }
	b.decode(b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}), &target)
	var attached struct{ SessionID string }
	b.decode(b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}), &attached)
	t := &tab{b, attached.SessionID}
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		t.call(domain+".enable", nil)
	}
	t.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": v.width, "height": v.height, "deviceScaleFactor": 1, "mobile": v.width < 600})
	t.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": v.scheme}}})
	t.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": v.noScript})
	t.call("Page.navigate", map[string]any{"url": url})
	t.wait("Page.loadEventFired")
	return t
}

func (t *tab) call(method string, params any) json.RawMessage {
	t.t.Helper()
	return t.browser.call(t.session, method, params)
}

func (b *browser) decode(raw json.RawMessage, v any) {
	b.t.Helper()
	if err := json.Unmarshal(raw, v); err != nil {
		b.t.Fatalf("%v in %s", err, raw)
	}
}

// wait returns when the tab has sent news of this kind.
func (t *tab) wait(method string) {
	t.t.Helper()
	for i, e := range t.events {
		if e.Session == t.session && e.Method == method {
			t.events = append(t.events[:i], t.events[i+1:]...)
			return
		}
	}
	for {
		e := t.read()
		if e.Session == t.session && e.Method == method {
			return
		}
		t.events = append(t.events, e)
	}
}

// eval returns the value of a JavaScript expression, awaited if it is a promise, in the form of JSON.
func (t *tab) eval(expression string) string {
	t.t.Helper()
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	t.decode(t.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}), &answer)
	if answer.ExceptionDetails != nil {
		t.t.Fatalf("%s: %s", expression, answer.ExceptionDetails)
	}
	return string(answer.Result.Value)
}

// screenshot returns a picture of the whole page, and keeps it if go test was given -artifacts.
func (t *tab) screenshot(name string) image.Image {
	t.t.Helper()
	var shot struct{ Data []byte }
	t.decode(t.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}), &shot)
	if err := os.WriteFile(filepath.Join(t.t.ArtifactDir(), name+".png"), shot.Data, 0o644); err != nil {
		t.t.Fatal(err)
	}
	picture, _, err := image.Decode(bytes.NewReader(shot.Data))
	if err != nil {
		t.t.Fatal(err)
	}
	return picture
}

// complaints are what the console of the tab has got: errors of the script and breaches of the policy.
func (t *tab) complaints() []string {
	t.eval("new Promise(requestAnimationFrame)") // what was under way is reported before the answer
	var all []string
	for _, e := range t.events {
		if e.Session == t.session && (e.Method == "Log.entryAdded" || e.Method == "Runtime.exceptionThrown" || e.Method == "Runtime.consoleAPICalled") {
			all = append(all, string(e.Params))
		}
	}
	return all
}

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
	}{
		{"trouble", statusAt(now), flowsAt(now), []int{1280, 820, 390}},
		{"well", wellAt(now), flowsAt(now), []int{1280, 390}},
		{"long", longAt(now), flowsAt(now), []int{1280, 1160, 390}},
		{"nothing", empty, nil, []int{390}},
	}
	for _, p := range pictures {
		url := serve(t, ip.V6, newFake(p.status, p.flows), new(metrics.Registry), Options{})
		for _, width := range p.widths {
			for _, scheme := range []string{"light", "dark"} {
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
	// What is cut off on the left or right cannot be scrolled to.
	if got := tab.eval(`[...document.querySelectorAll("td, th, .tile, .banner")].filter(e => e.closest("thead") === null || innerWidth > 1152)
		.filter(e => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > e.clientWidth + 1)
		.map(e => e.outerHTML).join("\n")`); got != `""` {
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
			`document.querySelectorAll("#services tbody tr").length`:                                                           `3`,
			`document.querySelector('[data-key="mail/ipv6"]') === row`:                                                         `true`,
			`row.querySelector('[data-label=Flows] data').textContent`:                                                         `"777"`,
			`document.querySelector("#backends tbody th").textContent`:                                                         `"10.0.1.9:80"`,
			`document.querySelectorAll("#backends tbody tr").length`:                                                           `7`,
			`document.querySelector("#live button") === button`:                                                                `true`,
			`document.querySelector("#live span").textContent`:                                                                 `"live, every 2 s"`,
			`document.querySelectorAll("#services tbody").length`:                                                              `3`,
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

// until returns when a condition of the page has become true. It is asked at each frame.
func (t *tab) until(condition string) {
	t.t.Helper()
	if got := t.eval(fmt.Sprintf(`new Promise(done => {
		const end = performance.now() + 20000;
		const look = () => (%s) ? done("yes") : performance.now() > end ? done("no") : requestAnimationFrame(look);
		look();
	})`, condition)); got != `"yes"` {
		t.t.Fatalf("%s never became true", condition)
	}
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
	if got := tab.eval(`document.querySelectorAll("#services tbody tr").length`); got != "4" {
		t.Errorf("%s rows are left, want all 4", got)
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
