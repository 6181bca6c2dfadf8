// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"

	"github.com/kyozon/kyozon/service"
)

// Kyozon is the edge.
type Kyozon struct {
	Site   string `yaml:"site"`   // path of the site file, from the lab file; or
	Inline string `yaml:"inline"` // the site file itself

	Files map[string]string `yaml:"files"` // what stands beside the site file, by name

	// Certificates are made for the lab, and nobody else believes them: "mx6" is mx6.pem and mx6.key beside the site file, for
	// the host name that is given.
	Certificates map[string]string `yaml:"certificates"`
}

const sitePath = "/run/kyozon/site.yaml"

func (k *Kyozon) name() string { return "kyozon" }

func (k *Kyozon) check(HostSpec) []problem {
	if (k.Site == "") == (k.Inline == "") {
		return []problem{{nil, errors.New("give either site or inline")}}
	}
	var all []problem
	for name := range k.Files {
		if name != filepath.Base(name) || name == filepath.Base(sitePath) || name == "." || name == ".." {
			all = append(all, problem{[]string{"files", name}, errors.New("must be the name of a file beside the site file")})
		}
	}
	for name, host := range k.Certificates {
		if !hostName.MatchString(name) || !domainName.MatchString(host) {
			all = append(all, problem{[]string{"certificates", name}, errors.New("must be a plain name, and the host name of a certificate")})
		}
	}
	return all
}

// daemon copies the site file to the host, so that a test can change it there and reload.
func (k *Kyozon) daemon(ctx context.Context, h *Host) (Daemon, error) {
	text := []byte(k.Inline)
	if k.Site != "" {
		var err error
		if text, err = os.ReadFile(h.lab.path(k.Site)); err != nil {
			return Daemon{}, err
		}
	}
	if err := h.WriteFile(sitePath, text); err != nil {
		return Daemon{}, err
	}
	for _, dir := range []string{"/var/lib/kyozon", "/var/log/kyozon"} { // which systemd makes: StateDirectory, LogsDirectory
		if err := h.WriteFile(dir+"/.lab", nil); err != nil {
			return Daemon{}, err
		}
	}
	for name, text := range k.Files {
		if err := h.WriteFile(filepath.Join(filepath.Dir(sitePath), name), []byte(text)); err != nil {
			return Daemon{}, err
		}
	}
	for name, host := range k.Certificates {
		chain, key, err := certify(host)
		if err != nil {
			return Daemon{}, err
		}
		at := filepath.Join(filepath.Dir(sitePath), name)
		if err := errors.Join(h.WriteFile(at+".pem", chain), h.WriteFile(at+".key", key)); err != nil {
			return Daemon{}, err
		}
	}
	binary, err := h.lab.kyozon()
	if err != nil {
		return Daemon{}, err
	}
	admin, err := adminOf(text)
	if err != nil {
		return Daemon{}, err
	}
	if err := k.relay(ctx, h, binary, text); err != nil {
		return Daemon{}, err
	}
	return Daemon{Name: "kyozon", Argv: []string{binary, "run", sitePath}, Ready: AnswersHTTP(admin, "/readyz")}, nil
}

// relay starts the relay of media, if the site has networks for it.
func (k *Kyozon) relay(ctx context.Context, h *Host, binary string, site []byte) error {
	var s struct {
		Networks map[string]any `yaml:"networks"`
	}
	if err := yaml.Unmarshal(site, &s); err != nil {
		return fmt.Errorf("read site: %w", err)
	}
	if len(s.Networks) == 0 {
		return nil
	}
	_, err := h.Start(ctx, Daemon{Name: "kyozon media", Argv: []string{binary, "media", sitePath}, Ready: func(context.Context) error {
		return h.inside(func() error {
			_, err := os.Stat(service.MediaSocket("/var/lib/kyozon"))
			return err
		})
	}})
	return err
}

// kyozon returns the path of the binary under test.
func (l *Lab) kyozon() (string, error) {
	binary := l.options.Kyozon
	if binary == "" {
		var err error
		if binary, err = os.Executable(); err != nil {
			return "", fmt.Errorf("find own binary: %w", err)
		}
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return "", err
	}
	if dir := hiddenAt(binary); dir != "" {
		return "", fmt.Errorf("run %s: hosts have their own %s: copy it elsewhere", binary, dir)
	}
	return binary, nil
}

// path returns where a file is that the lab file names.
func (l *Lab) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(l.file.dir, name)
}
