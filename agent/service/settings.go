package service

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/hyperkeep/hyperkeep/agent/statefile"
)

// Settings are the content of config.yaml: how the agent of this machine works. Paths that are not absolute are below the folder of the file.
type Settings struct {
	// Host is the name of this machine's HyperVHost object.
	Host string `json:"host"`
	// Kubeconfig says how to reach the API server.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// StateDir is the folder of the agent's journal.
	StateDir string `json:"stateDir,omitempty"`
	// LogLevel is info, or debug to hear more, or warn or error to hear less.
	LogLevel slog.Level `json:"logLevel"`
	// Emulated is the socket of an emulated Hyper-V host to work on instead of this machine's Hyper-V.
	Emulated string `json:"emulated,omitempty"`

	folder string
}

// The files of an installation.
const (
	settingsFile = "config.yaml"
	tokenFile    = "token"
	logFolder    = "logs"
)

// DefaultSettings are those of a host that enrolls into a folder.
func DefaultSettings(folder, host string) Settings {
	return Settings{Host: host, Kubeconfig: "kubeconfig", StateDir: "state", folder: folder}
}

// Load reads the settings in a folder. The error says what to do when there are none.
func Load(folder string) (Settings, error) {
	settings := DefaultSettings(folder, "")
	path := filepath.Join(folder, settingsFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, fmt.Errorf("this host is not enrolled: run agent.exe enroll first (%w)", err)
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read the settings: %w", err)
	}
	if err := yaml.UnmarshalStrict(content, &settings); err != nil {
		return Settings{}, fmt.Errorf("read the settings in %s: %w", path, err)
	}
	if settings.Host == "" {
		return Settings{}, fmt.Errorf("read the settings in %s: host is missing, the name of this machine's HyperVHost object", path)
	}
	return settings, nil
}

// Save writes the settings into their folder.
func (s Settings) Save() error {
	content, err := yaml.Marshal(s)
	if err == nil {
		err = statefile.Write(filepath.Join(s.folder, settingsFile), content)
	}
	if err != nil {
		return fmt.Errorf("write the settings: %w", err)
	}
	return nil
}

// KubeconfigPath is where the kubeconfig lies.
func (s Settings) KubeconfigPath() string { return s.path(s.Kubeconfig) }

// StatePath is where the journal lies.
func (s Settings) StatePath() string { return s.path(s.StateDir) }

// TokenPath is where the agent's token lies.
func (s Settings) TokenPath() string { return s.path(tokenFile) }

// LogPath is where a log of this name lies.
func (s Settings) LogPath(name string) string { return filepath.Join(s.folder, logFolder, name) }

func (s Settings) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.folder, name)
}

// CheckPrivate returns ErrNotPrivate when others than SYSTEM and Administrators may read or change the settings, the kubeconfig or the token.
func (s Settings) CheckPrivate() error {
	err := checkFolder(s.folder)
	for _, path := range []string{s.path(settingsFile), s.KubeconfigPath(), s.TokenPath()} {
		failed := checkFile(path)
		if errors.Is(failed, fs.ErrNotExist) && path == s.TokenPath() {
			continue // the kubeconfig may have another way to log in
		}
		err = errors.Join(err, failed)
	}
	return err
}
