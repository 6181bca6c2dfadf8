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
	_ "image/png" // decodes screenshots
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
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
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
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
